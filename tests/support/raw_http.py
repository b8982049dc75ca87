"""HTTP byte by byte, as no client library sends it."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit


def connect(url: str, timeout: float = 20) -> socket.socket:
    """Open a connection to the server of a URL."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout)


def send_until_answered(connection: socket.socket, data: bytes, times: int) -> None:
    """Send the same bytes again and again, until that is done or the server has hung up."""
    try:
        for _ in range(times):
            connection.sendall(data)
    except OSError:
        return


def answer(connection: socket.socket) -> tuple[int, Any]:
    """Return an answer's status and problem document; (0, None) if the server hung up without one."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    if not received:
        return 0, None
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)
