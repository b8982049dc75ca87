"""Where webhooks may be sent."""

import ipaddress
import queue
import re
import socket
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit

from emx_shared.settings import Settings

_PRINTABLE = re.compile("[!-~]*")
_REFUSED = [
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments, RFC 6890
        "192.88.99.0/24",  # 6to4 relays, RFC 7526
        "2001::/32",  # Teredo, RFC 4380: leads to whatever its server and its client are
        "64:ff9b:1::/48",  # NAT64 of a network's own, RFC 8215
        "fec0::/10",  # site-local, RFC 3879
    )
]
"""Not public, though ``ipaddress`` holds most of them to be global."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOOKUP_SECONDS = 2.0
_lookups = threading.BoundedSemaphore(16)
"""Look-ups at a time; while all are hung, names are not looked up."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ForbiddenTarget(ValueError):
    """Webhooks may not be sent to this URL; the text says why."""


@dataclass(frozen=True)
class WebhookTargets:
    """URLs and addresses to which webhooks may be sent.

    Attributes:
        allow_private: http, loopback and private ranges too, for development on one machine.
        allowed: networks that are admitted though they aren't public; https is needed there too.
    """

    allow_private: bool = False
    allowed: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> "WebhookTargets":
        """Return the targets that the settings allow."""
        networks = tuple(ipaddress.ip_network(network) for network in settings.webhook_allow)
        return cls(settings.webhook_allow_private, networks)

    def check(self, url: str) -> None:
        """Refuse a URL to which nothing could ever be delivered.

        A name server that is slow or briefly unavailable refuses nothing: addresses are checked again before each
        try. Takes two seconds at most.

        Raises:
            ForbiddenTarget: the text says why.
        """
        if not _PRINTABLE.fullmatch(url):
            raise ForbiddenTarget(
                "The webhook URL must be of printable ASCII characters: write the host in punycode, and "
                "percent-encode the rest."
            )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise ForbiddenTarget("The webhook URL can't be parsed.") from None
        if parts.scheme not in (("http", "https") if self.allow_private else ("https",)) or not host:
            raise ForbiddenTarget("The webhook URL must begin with https://.")
        if parts.username or parts.password:
            raise ForbiddenTarget("The webhook URL must not hold a user name or password.")
        found = _look_up(host, port)
        if found is not None:
            self._admit(found)

    def resolve(self, host: str, port: int) -> list[str]:
        """Look up a host's addresses. Connect to one of these: another look-up may give others.

        Raises:
            ForbiddenTarget: the host has no address, or one that may not be sent to.
            OSError: the name server is unavailable.
        """
        addresses = _addresses(host, port)
        self._admit(addresses)
        return addresses

    def _admit(self, addresses: list[str]) -> None:
        if not all(self._admits(ipaddress.ip_address(address)) for address in addresses):
            raise ForbiddenTarget("The webhook URL's host has an address that isn't public.")

    def _admits(self, address: Address) -> bool:
        if self.allow_private:
            return True
        inner = _inner(address)
        if any(one in network for network in self.allowed for one in (address, inner)):
            return True
        if any(inner in network for network in _REFUSED):
            return False
        return inner.is_global and not (inner.is_multicast or inner.is_reserved or inner.is_unspecified)


def _addresses(host: str, port: int) -> list[str]:
    """Return a host's addresses. Raises ForbiddenTarget if it has none, OSError if that can't be told now."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise ForbiddenTarget("The webhook URL's host has no address.") from None
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise
        raise ForbiddenTarget("The webhook URL's host has no address.") from None
    return [str(address[4][0]).partition("%")[0] for address in found]


def _look_up(host: str, port: int) -> list[str] | None:
    """Return a host's addresses; None if the name server doesn't answer soon. Raises ForbiddenTarget.

    A look-up can't be interrupted, so it runs in a thread that nobody waits for longer.
    """
    if not _lookups.acquire(blocking=False):
        return None
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(_addresses(host, port))
        except Exception as error:
            answers.put(error)
        finally:
            _lookups.release()

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        answer = answers.get(timeout=_LOOKUP_SECONDS)
    except queue.Empty:
        return None
    if isinstance(answer, ForbiddenTarget):
        raise answer
    return None if isinstance(answer, Exception) else answer


def _inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, where it does (RFC 4291, 6052, 3056)."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
