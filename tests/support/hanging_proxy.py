"""A server that stops answering, as one that was paused does: connections stay open, and nothing comes."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class HangingProxy:
    """Passes bytes on between its clients and a server, until ``hang`` is set."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.hang = threading.Event()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.hang.is_set():
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def hanging_proxy(address: str) -> Iterator[HangingProxy]:
    host, _, port = address.partition(":")
    proxy = HangingProxy((host, int(port)))
    try:
        yield proxy
    finally:
        proxy.close()
