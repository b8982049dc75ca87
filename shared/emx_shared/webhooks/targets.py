"""Where webhooks may be sent."""

import ipaddress
import re
import socket
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
        """Raise ForbiddenTarget for a URL to which nothing could ever be delivered."""
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
        self.resolve(host, port)

    def resolve(self, host: str, port: int) -> list[str]:
        """Look up a host's addresses. Connect to one of these: another look-up may give others.

        Raises:
            ForbiddenTarget: one of the addresses may not be sent to.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise ForbiddenTarget("The webhook URL's host has no address.") from None
        addresses = [str(address[4][0]).partition("%")[0] for address in found]
        if not all(self._admits(ipaddress.ip_address(address)) for address in addresses):
            raise ForbiddenTarget("The webhook URL's host has an address that isn't public.")
        return addresses

    def _admits(self, address: Address) -> bool:
        if self.allow_private:
            return True
        inner = _inner(address)
        if any(one in network for network in self.allowed for one in (address, inner)):
            return True
        if any(inner in network for network in _REFUSED):
            return False
        return inner.is_global and not (inner.is_multicast or inner.is_reserved or inner.is_unspecified)


def _inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, where it does (RFC 4291, 6052, 3056)."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
