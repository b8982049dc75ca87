"""A proxy before an S3 server that answers in its stead, delays, cuts or drops requests."""

import asyncio
import itertools
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, Self

Cut = Literal["before headers", "after headers", "in the body", "before the answer"]
CUTS: tuple[Cut, ...] = ("before headers", "after headers", "in the body", "before the answer")
_WRITES = (b"PUT", b"POST", b"DELETE")


@dataclass(frozen=True)
class Refuse:
    """Answers with an S3 error instead of the server; ``writes_only`` lets reads through."""

    status: HTTPStatus
    code: str
    writes_only: bool


@dataclass(frozen=True)
class Delay:
    """Passes every request on after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class CutWrites:
    """Cuts two of three PUTs, in turn at each place of ``CUTS``."""


@dataclass(frozen=True)
class Drop:
    """Closes every connection without an answer, as a server that is away."""


ProxyFault = Refuse | Delay | CutWrites | Drop


class StoreProxy:
    """Passes requests on while it is entered, and has one ``fault`` at a time."""

    def __init__(self, target: int) -> None:
        """Name the port of the server on this machine."""
        self.fault: ProxyFault | None = None
        self.port = 0
        self._target = target
        self._turns = itertools.cycle((*CUTS[:2], None, *CUTS[2:], None))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="store proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await client.readuntil(b"\r\n\r\n")
                if upstream is None and not isinstance(self.fault, Drop):
                    server, upstream = await asyncio.open_connection("127.0.0.1", self._target, limit=2**20)
                try:
                    body = await client.readexactly(_length(head))
                except asyncio.IncompleteReadError as cut:  # the server shall see the same cut
                    if upstream:
                        upstream.write(head + cut.partial)
                    raise
                if upstream is None or not await self._pass_on(head, body, server, upstream, answers):
                    break
        for writer in (upstream, answers):
            if writer:
                writer.close()

    async def _pass_on(
        self,
        head: bytes,
        body: bytes,
        server: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
        answers: asyncio.StreamWriter,
    ) -> bool:
        """Pass a request on, as far as the fault allows. Return whether the connection goes on."""
        method, fault = head.partition(b" ")[0], self.fault
        if isinstance(fault, Drop):
            return False
        if isinstance(fault, Refuse) and (method in _WRITES or not fault.writes_only):
            answers.write(_refusal(fault, method))
            return True
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.seconds)
        cut = next(self._turns) if isinstance(fault, CutWrites) and method == b"PUT" else None
        sent = {"before headers": b"", "after headers": head, "in the body": head + body[: len(body) // 2]}
        upstream.write(head + body if cut is None else sent.get(cut, head + body))
        await upstream.drain()
        if cut not in (None, "before the answer"):
            return False
        answer = await _answer(server, method)
        if cut:
            return False
        answers.write(answer)
        await answers.drain()
        return True


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        found, _, value = line.partition(b":")
        if found.lower() == name:
            return value.strip()
    return None


def _length(head: bytes) -> int:
    return int(_header(head, b"content-length") or 0)


async def _answer(server: asyncio.StreamReader, method: bytes) -> bytes:
    head = await server.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if method == b"HEAD" or status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return head
    if (_header(head, b"transfer-encoding") or b"").lower() != b"chunked":
        return head + await server.readexactly(_length(head))
    parts = [head]
    while True:
        size = await server.readuntil(b"\r\n")
        parts += [size, await server.readexactly(int(size.partition(b";")[0], 16) + 2)]
        if int(size.partition(b";")[0], 16) == 0:
            return b"".join(parts)


def _refusal(fault: Refuse, method: bytes) -> bytes:
    text = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>chaos</Message></Error>".encode()
    head = (
        f"HTTP/1.1 {fault.status.value} {fault.status.phrase}\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(text)}\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else text)
