"""From where a gateway without API keys may be called."""

import ipaddress
from urllib.parse import urlsplit

from fastapi import Request

from emx_gateway.http.problems import Problem
from emx_shared.settings import Settings


class LocalOnlyGuard:
    """Admits this machine's own programs and pages only.

    Any page that a browser shows may send requests to localhost, and by a name of its own that points here
    (DNS rebinding) it could read the answers.
    """

    def __init__(self, settings: Settings) -> None:
        self._hosts = {settings.host, *settings.allowed_hosts}
        self._origins = set(settings.cors_origins)

    def check(self, request: Request) -> None:
        """Raise Problem 403 for a request that another host or another site's page sent."""
        host = _hostname(request.headers.get("host", ""))
        if not (host in self._hosts or is_loopback(host)):
            detail = (
                "Without API keys this server answers at localhost only. Create a key (`emx keys create`), or add "
                "this host to EMX_ALLOWED_HOSTS."
            )
            raise Problem(403, "keyless-elsewhere", detail)
        if self._is_foreign(request):
            detail = "Pages of other sites may call this server with an API key only."
            raise Problem(403, "foreign-page", detail)

    def _is_foreign(self, request: Request) -> bool:
        origin = request.headers.get("origin")
        if origin is not None:
            own = origin.partition("://")[2] == request.headers.get("host")
            return not own and origin not in self._origins
        followed = request.method == "GET" and request.headers.get("sec-fetch-mode") == "navigate"
        return request.headers.get("sec-fetch-site") == "cross-site" and not followed


def is_loopback(host: str) -> bool:
    """Return whether a name or an address is that of this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
