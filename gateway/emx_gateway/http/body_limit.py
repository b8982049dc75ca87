"""Refuse bodies that are too long before they are stored anywhere."""

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emx_gateway.http.problems import Problem, answer


class BodyLimit:
    """Counts the bytes of a request's body as they arrive, whatever Content-Length says."""

    def __init__(self, app: ASGIApp, limit: int, larger: Mapping[str, int]) -> None:
        """Set the limit in bytes; ``larger`` has paths with a limit of their own."""
        self._app, self._limit, self._larger = app, limit, larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless its body is too long: then answer 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope["path"], self._limit)
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > limit:
            await answer(_too_large(limit))(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, counted, send)


def _too_large(limit: int) -> Problem:
    detail = f"The request's body is larger than the {limit} bytes that are accepted here."
    return Problem(413, "body-too-large", detail, {"Connection": "close"})
