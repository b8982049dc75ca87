"""Refuse bodies that are too long or too slow before they are stored anywhere."""

import asyncio
import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emx_gateway.http.paths import path_of
from emx_gateway.http.problems import Problem, answer
from emx_gateway.http.stopping import Stopping

LEAST_RATE = 8 * 2**10
"""Bytes per second that a body must come at, on average."""
_LAST_BYTES = 4.0
"""Seconds for which bodies are still received once the server stops."""


class BodyLimit:
    """Counts and times a request's body as it arrives, whatever Content-Length says."""

    def __init__(
        self, app: ASGIApp, limit: int, larger: Mapping[str, int], seconds: float, stopping: Stopping
    ) -> None:
        """Set the limits.

        Args:
            app: what the requests are passed on to.
            limit: in bytes.
            larger: paths with a limit of their own.
            seconds: for each part of a body, and for all of it, beside the time that ``LEAST_RATE`` allows.
            stopping: whether bodies had better be sent to another server.
        """
        self._app, self._limit, self._larger = app, limit, larger
        self._seconds, self._stopping = seconds, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless its body is too long: then answer 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(path_of(scope), self._limit)
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > limit:
            await answer(_too_large(limit))(scope, receive, send)
            return
        received, complete, began = 0, False, 0.0

        async def counted() -> Message:
            nonlocal received, complete, began
            if complete:
                return await receive()  # the client's leaving, for which streams wait
            began = began or time.monotonic()
            left = began + self._seconds + received / LEAST_RATE - time.monotonic()
            message = await self._part(receive, min(self._seconds, left))
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, counted, send)

    async def _part(self, receive: Receive, seconds: float) -> Message:
        """Return a body's next part. Raises Problem 408 if it is late, 503 if this server stops meanwhile."""
        part = asyncio.ensure_future(receive())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((part, stopping), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not part.done() and self._stopping:
                await asyncio.wait((part,), timeout=min(seconds, _LAST_BYTES))
            if part.done():
                return part.result()
        finally:
            part.cancel()
            stopping.cancel()
        if self._stopping:
            detail = "This server stops. Nothing was accepted. Send the request again."
            raise Problem(503, "stopping", detail, {"Retry-After": "1", "Connection": "close"})
        detail = f"The body came too slowly: at most {self._seconds:.0f} s may pass between its parts."
        raise Problem(408, "too-slow", detail, {"Connection": "close"})


def _too_large(limit: int) -> Problem:
    detail = f"The request's body is larger than the {limit} bytes that are accepted here."
    return Problem(413, "body-too-large", detail, {"Connection": "close"})
