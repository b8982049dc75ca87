"""Refuses bodies that are too long before they are stored anywhere."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.problems import Problem, answer


class BodyLimit:
    """Counts the bytes of a request's body as they arrive, whatever Content-Length says."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > self._limit:
            await answer(self._problem())(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise self._problem()
            return message

        await self._app(scope, counted, send)

    def _problem(self) -> Problem:
        detail = f"The request's body is larger than the {self._limit} bytes that are accepted."
        return Problem(413, "body-too-large", detail, {"Connection": "close"})
