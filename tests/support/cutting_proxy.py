"""A proxy that cuts a PUT where it is told to, or takes a header away."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

Cut = Literal["before headers", "after headers", "in the body", "before the answer"]
CUTS: tuple[Cut, ...] = ("before headers", "after headers", "in the body", "before the answer")


@dataclass
class CuttingProxy:
    """Passes connections on to a server. ``cuts`` come first, one for each PUT."""

    target: str
    cuts: list[Cut] = field(default_factory=list)
    dropped_header: bytes | None = None
    address: str = ""

    def serve(self, client: socket.socket) -> None:
        host, _, port = self.target.partition(":")
        with client, socket.create_connection((host, int(port))) as server, suppress(OSError):
            while (head := _head(client)) is not None:
                self._pass_on(client, server, head)

    def _pass_on(self, client: socket.socket, server: socket.socket, head: bytes) -> None:
        cut = self.cuts.pop(0) if head.startswith(b"PUT") and self.cuts else None
        if cut == "before headers":
            raise ConnectionResetError
        lines = head.split(b"\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length")), 0
        )
        if self.dropped_header:
            head = b"\r\n".join(line for line in lines if not line.lower().startswith(self.dropped_header))
        server.sendall(head)
        if cut == "after headers":
            raise ConnectionResetError
        sent, most = 0, length // 2 if cut == "in the body" else length
        while sent < most:
            part = client.recv(min(65536, most - sent))
            if not part:
                raise ConnectionResetError
            server.sendall(part)
            sent += len(part)
        if cut == "in the body":
            raise ConnectionResetError
        answer = server.recv(65536)
        if cut == "before the answer":
            raise ConnectionResetError
        client.sendall(answer)
        server.settimeout(0.05)  # the rest of it, if there is any
        with suppress(TimeoutError):
            while part := server.recv(65536):
                client.sendall(part)
        server.settimeout(None)


def _head(client: socket.socket) -> bytes | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = client.recv(1)
        if not byte:
            return None
        head += byte
    return head


@contextmanager
def cutting_proxy(target: str) -> Iterator[CuttingProxy]:
    """Run the proxy before a server at HOST:PORT."""
    listening = socket.create_server(("127.0.0.1", 0))
    proxy = CuttingProxy(target, address=f"127.0.0.1:{listening.getsockname()[1]}")

    def accept() -> None:
        with suppress(OSError):
            while True:
                client = listening.accept()[0]
                threading.Thread(target=proxy.serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield proxy
    listening.close()
