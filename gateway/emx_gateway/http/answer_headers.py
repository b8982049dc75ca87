"""Headers of every answer, and answers to HEAD."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emx_gateway.http.paths import full_path_of, path_of
from emx_gateway.http.request_ids import REQUEST_ID, TRACE_PARENT, request_id

_ALWAYS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
}
_PRIVATE = (b"cache-control", b"private, no-store")
_OURS = ("/v1/", "/explain", "/readyz", "/metrics")
"""What may name patients or jobs, or is true for a moment only: no cache keeps it unless an endpoint says so."""


class StreamCut(Exception):
    """An answer ends before it is over: the connection is closed, so that the client knows."""


class _HeadComplete(Exception):
    """The headers of an answer to HEAD are sent, and its content isn't needed."""


class AnswerHeaders:
    """Adds headers: never sniffed, framed, leaked or kept by caches, with rate limits and the request's id.

    The request's id is in ``state["request_id"]``. HEAD is answered as GET would be, without content.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the headers to its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        state = scope.setdefault("state", {})
        state["request_id"] = request_id(headers)
        added = {REQUEST_ID.encode(): state["request_id"].encode()}
        if TRACE_PARENT.encode() in headers:
            added[TRACE_PARENT.encode()] = headers[TRACE_PARENT.encode()]
        is_head = scope["method"] == "HEAD"
        scope = {**scope, "path": full_path_of(scope), "method": "GET" if is_head else scope["method"]}

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                limits = {k.lower().encode(): v.encode() for k, v in state.get("headers", {}).items()}
                more = [*(_ALWAYS | added | limits).items(), *_caching(path_of(scope), message["headers"])]
                message["headers"] = [*message["headers"], *more]
            elif is_head:
                await send({"type": "http.response.body"})
                raise _HeadComplete
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except* (StreamCut, _HeadComplete):  # of a stream that was cut the server closes the connection
            pass


def _caching(path: str, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    said = any(name.lower() == _PRIVATE[0] for name, _ in headers)
    return [] if said or not path.startswith(_OURS) else [_PRIVATE]
