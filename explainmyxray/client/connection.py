"""Where the server is, and how a call becomes a request to it."""

from dataclasses import dataclass
from typing import Any

import httpx

from emx_shared.settings import settings
from explainmyxray.client.exchange import Call

DEFAULT_URL = "http://127.0.0.1:8000"
_USER_AGENT = "explainmyxray-python"
_STREAM_SILENCE = 60.0
"""Seconds; a server that lives sends something every 15."""


@dataclass(frozen=True)
class Connection:
    """A server's address and the key to it. ``timeout``: seconds that it may be silent."""

    url: str
    api_key: str | None
    timeout: float

    @classmethod
    def to(cls, url: str | None, api_key: str | None, timeout: float) -> "Connection":
        """None is for what the settings say. Raises ValueError for what is no address, or no key."""
        address = url or settings().url or DEFAULT_URL
        try:
            parsed = httpx.URL(address)
        except httpx.InvalidURL:
            parsed = httpx.URL("")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError(f"The server's address must be like {DEFAULT_URL}, not {address!r}.")
        key = (api_key or settings().api_key or "").strip()
        if not key.isascii() or not (key or "x").isprintable():
            raise ValueError("An API key is like emx_…: this one has characters that none has.")
        return cls(address.rstrip("/"), key or None, timeout)

    def request(
        self, http: httpx.Client | httpx.AsyncClient, call: Call[Any], stream: bool = False
    ) -> httpx.Request:
        silence = max(self.timeout, _STREAM_SILENCE) if stream else self.timeout + call.patience
        headers = {"User-Agent": _USER_AGENT, **call.headers}
        if call.keyed and self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return http.build_request(
            call.method,
            call.path if call.path.startswith("http") else self.url + call.path,
            params=call.params or None,
            headers=headers,
            json=call.json,
            data=dict(call.form) or None,
            # A file's own name may be a patient's: it isn't sent.
            files=[(field, ("image", data)) for field, data in call.files] or None,
            content=call.content,
            timeout=httpx.Timeout(self.timeout, read=silence),
        )
