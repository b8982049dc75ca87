"""Streams of events and results, which end early when their caller's key is revoked or the server stops."""

from collections.abc import AsyncIterator
from typing import TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from emx_gateway.auth.authenticator import Authenticator, Caller
from emx_gateway.http.answer_headers import StreamCut
from emx_gateway.http.stopping import Stopping

T = TypeVar("T")


async def while_admitted(request: Request, caller: Caller, stream: AsyncIterator[T]) -> AsyncIterator[T]:
    """Pass a stream on for as long as its caller may have it.

    Raises:
        StreamCut: the caller's key was revoked, or this server stops.
    """
    authenticator: Authenticator = request.app.state.authenticator
    stopping: Stopping = request.app.state.stopping
    async for each in stream:
        if stopping or not await run_in_threadpool(authenticator.still_admits, caller):
            raise StreamCut
        yield each
