"""Where webhooks may go, and what they are signed with. Both follow Standard Webhooks (standardwebhooks.com)."""

import base64
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict

from emx_shared.settings import Settings
from emx_shared.store import NotFound, Store

OVERLAP = timedelta(hours=24)
"""For so long after a rotation, events are signed with the former secret too."""

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
    """The URL is not one that webhooks may be sent to; the text says why."""


@dataclass(frozen=True)
class Targets:
    """Which URLs and addresses webhooks may be sent to.

    Attributes:
        allow_private: http, loopback and private ranges too, for development on one machine.
        allowed: networks that are admitted though they aren't public; https is needed there too.
    """

    allow_private: bool = False
    allowed: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> "Targets":
        networks = tuple(ipaddress.ip_network(network) for network in settings.webhook_allow)
        return cls(settings.webhook_allow_private, networks)

    def check(self, url: str) -> None:
        """Raises ForbiddenTarget for a URL that could never be delivered to."""
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
        """The host's addresses, to one of which the connection must then be made: another look-up may give others.

        Raises ForbiddenTarget unless all of them may be sent to.
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
    """The IPv4 address that an IPv6 one stands for, where it does (RFC 4291, 6052, 3056)."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


class _Secret(BaseModel):
    model_config = ConfigDict(frozen=True)

    secret: str
    created_at: datetime
    retires_at: datetime | None = None


class _Kept(BaseModel):
    secrets: tuple[_Secret, ...] = ()


class WebhookSecrets:
    """Each tenant's signing secrets: the newest first, the former as long as it may still be needed.

    A tenant that has made none uses the operator's, if there is one.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._operators = store, settings.webhook_secret

    def active(self, tenant: str) -> list[str]:
        """All that events are signed with now; empty if there is none."""
        now = self._store.now()
        own = [one.secret for one in self._kept(tenant) if one.retires_at is None or one.retires_at > now]
        return own or ([self._operators] if self._operators else [])

    def rotate(self, tenant: str) -> str:
        """A new secret (``whsec_…``); the former one stays valid for ``OVERLAP``."""
        now = self._store.now()
        new = _Secret(secret="whsec_" + base64.b64encode(secrets.token_bytes(32)).decode(), created_at=now)
        former = [one for one in self._kept(tenant) if one.retires_at is None][:1]
        retired = [one.model_copy(update={"retires_at": now + OVERLAP}) for one in former]
        self._store.put(_key(tenant), _Kept(secrets=(new, *retired)).model_dump_json().encode())
        return new.secret

    def _kept(self, tenant: str) -> tuple[_Secret, ...]:
        try:
            return _Kept.model_validate_json(self._store.get(_key(tenant))).secrets
        except NotFound:
            return ()


def _key(tenant: str) -> str:
    return f"secrets/webhooks/{tenant}"
