"""A server's address and API key, and the HTTP request that an API request becomes."""

from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import ValidationError

from emx_shared.settings import Settings, settings
from emx_shared.version import __version__
from explainmyxray.client.errors import InvalidConnection
from explainmyxray.client.requests import ApiRequest

DEFAULT_URL = "http://127.0.0.1:8000"
"""Address of a server that ``emx up`` starts."""

_USER_AGENT = f"explainmyxray-python/{__version__}"
_STREAM_SILENCE = 60.0
"""Seconds without a byte after which a stream counts as broken; a running server sends something every 15 s."""


@dataclass(frozen=True)
class Connection:
    """A server's address and the API key for it.

    Attributes:
        url: The server's address without a trailing slash.
        api_key: The key sent as a bearer token, or None to send no key.
        timeout: Seconds that the server may stay silent.
    """

    url: str
    api_key: str | None
    timeout: float

    @classmethod
    def resolve(cls, url: str | None, api_key: str | None, timeout: float) -> "Connection":
        """Check the address and the key, and take them from the settings where they are None.

        Raises:
            InvalidConnection: The address or the key is malformed, or the EMX_ environment variables are.
        """
        address = url or _settings().url or DEFAULT_URL
        try:
            parsed = httpx.URL(address)
        except httpx.InvalidURL:
            parsed = httpx.URL("")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InvalidConnection(f"The server's address must be like {DEFAULT_URL}, not {address!r}.")
        key = (api_key or _settings().api_key or "").strip()
        if not key.isascii() or not (key or "x").isprintable():
            raise InvalidConnection(
                "The API key has characters that no key has. A key is like emx_…: check EMX_API_KEY."
            )
        return cls(address.rstrip("/"), key or None, timeout)

    def build(
        self, http: httpx.Client | httpx.AsyncClient, request: ApiRequest[Any], stream: bool = False
    ) -> httpx.Request:
        """Build the HTTP request of an API request.

        The API key is added unless the request carries its own permission in its URL. File names aren't sent,
        since they may name patients.

        Args:
            http: The client that will send it.
            request: What to send.
            stream: Whether the answer is a stream, during which the server may stay silent for longer.
        """
        silence = max(self.timeout, _STREAM_SILENCE) if stream else self.timeout + request.held_for
        headers = {"User-Agent": _USER_AGENT, **request.headers}
        if request.authenticated and self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return http.build_request(
            request.method,
            request.path if request.path.startswith("http") else self.url + request.path,
            params=request.params or None,
            headers=headers,
            json=request.json,
            data=dict(request.form) or None,
            files=[(field, ("image", content)) for field, content in request.files] or None,
            content=request.content,
            timeout=httpx.Timeout(self.timeout, read=silence),
        )


def _settings() -> Settings:
    try:
        return settings()
    except ValidationError as error:
        names = ", ".join(f"EMX_{'_'.join(map(str, each['loc']))}".upper() for each in error.errors())
        raise InvalidConnection(f"These environment variables have invalid values: {names}.") from None
