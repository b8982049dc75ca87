"""The proxy has the faults that it says, each at its place."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus

import httpx
import pytest

from tests.chaos.store_proxy import CutWrites, Delay, Drop, Refuse, StoreProxy


class Server:
    """Answers every whole request with its length, and remembers what came, whole or not."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while True:
                number, data = len(self.came), b""
                self.came.append(b"")
                while not data.endswith(b"!"):
                    more = client.recv(4096)
                    if not more:
                        return
                    data += more
                    self.came[number] = data
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[StoreProxy]:
    with StoreProxy(server.port) as found:
        yield found


def put(proxy: StoreProxy) -> int | None:
    try:
        return httpx.put(f"http://127.0.0.1:{proxy.port}/key", content=b"0123456789!", timeout=5).status_code
    except httpx.TransportError:
        return None


def test_without_a_fault_everything_passes(proxy: StoreProxy, server: Server) -> None:
    assert [put(proxy), put(proxy)] == [200, 200]


def test_writes_are_cut_in_turn_at_every_place(proxy: StoreProxy, server: Server) -> None:
    proxy.fault = CutWrites()
    assert [put(proxy) for _ in range(6)] == [None, None, 200, None, None, 200]
    bodies = [came.partition(b"\r\n\r\n")[2] for came in server.came if came]
    assert bodies == [b"", b"0123456789!", b"01234", b"0123456789!", b"0123456789!"]


def test_refusals_delays_and_absences(proxy: StoreProxy, server: Server) -> None:
    proxy.fault = Refuse(HTTPStatus.FORBIDDEN, "AccessDenied", writes_only=True)
    assert put(proxy) == 403
    proxy.fault = Drop()
    assert put(proxy) is None
    proxy.fault = Delay(0.01)
    assert put(proxy) == 200
