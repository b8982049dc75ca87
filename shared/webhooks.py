"""Where a webhook may go. Signing follows Standard Webhooks (standardwebhooks.com)."""

import ipaddress
import socket
from urllib.parse import urlsplit


class ForbiddenTarget(ValueError):
    """The URL is not one that webhooks may be sent to; the text says why."""


def check_target(url: str, allow_private: bool = False) -> None:
    """Raises ForbiddenTarget unless ``url`` is https and resolves to public addresses only.

    ``allow_private`` also admits http, loopback and private ranges, for development on one machine.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise ForbiddenTarget("The webhook URL can't be parsed.") from None
    if parts.scheme not in (("http", "https") if allow_private else ("https",)) or not host:
        raise ForbiddenTarget("The webhook URL must begin with https://.")
    if parts.username or parts.password:
        raise ForbiddenTarget("The webhook URL must not hold a user name or password.")
    if allow_private:
        return
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ForbiddenTarget("The webhook URL's host has no address.") from None
    if not all(ipaddress.ip_address(address[4][0]).is_global for address in found):
        raise ForbiddenTarget("The webhook URL's host has an address that isn't public.")
