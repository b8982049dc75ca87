"""The clients, in a process of their own: ``python -m emx_benchmarks.gateway.load``.

Reads a ``Turn`` from each line of its input, carries it out, and writes a line with a ``Taken``.
"""

import http.client
import itertools
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_BOUNDARY = "----explainmyxray"
_POLL_PAUSE = 0.005
_PATIENCE = 30.0


class Door(BaseModel):
    """How a server is asked.

    Attributes:
        submit: path to which a form with ``file`` is posted.
        poll: path that tells a job's state, with ``{id}`` in it; None where there are no jobs.
        id, state: keys of the answers' JSON.
        ended: the states of a job that is done.
    """

    model_config = ConfigDict(frozen=True)

    port: int
    submit: str
    poll: str | None = None
    id: str = "id"
    state: str = "state"
    ended: tuple[str, ...] = ()


class Turn(BaseModel):
    """What is asked for.

    Attributes:
        image: file that each submission sends.
        clients: that submit at the same time, each over one connection that it keeps.
        seconds: after which none begins another submission.
        most: submissions, at most.
        to_the_end: poll each job until it is done, before the next.
    """

    door: Door
    image: Path
    clients: int
    seconds: float
    most: int
    to_the_end: bool = False


class Taken(BaseModel):
    """What it took, in seconds.

    Attributes:
        submits: until the answer, of each submission.
        ends: from before the submission until a poll said that the job is done, of each.
        seconds: of the whole turn.
        refused: submissions that weren't accepted.
    """

    submits: list[float] = []
    ends: list[float] = []
    seconds: float = 0.0
    refused: int = 0

    @property
    def rate(self) -> float:
        """Accepted submissions per second."""
        return len(self.submits) / self.seconds


def carry_out(turn: Turn) -> Taken:
    """Raises OSError and HTTPException where the server breaks off."""
    body, turns, taken = _form(turn.image), itertools.count(), Taken()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", turn.door.port, timeout=_PATIENCE)
        connection.connect()
        while time.perf_counter() < until and next(turns) < turn.most:
            _submit(connection, turn, body, taken)
        connection.close()

    with ThreadPoolExecutor(turn.clients) as pool:
        began = time.perf_counter()
        until = began + turn.seconds
        clients = [pool.submit(client) for _ in range(turn.clients)]
        for one in clients:
            one.result()
    taken.seconds = time.perf_counter() - began
    return taken


def _submit(connection: http.client.HTTPConnection, turn: Turn, body: bytes, taken: Taken) -> None:
    began = time.perf_counter()
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    connection.request("POST", turn.door.submit, body, headers)
    status, answer = _answer(connection)
    if not 200 <= status < 300:
        taken.refused += 1
        return
    taken.submits.append(time.perf_counter() - began)
    if not turn.to_the_end or turn.door.poll is None:
        return
    path = turn.door.poll.format(id=json.loads(answer)[turn.door.id])
    while time.perf_counter() - began < _PATIENCE:
        connection.request("GET", path)
        status, answer = _answer(connection)
        if status == 200 and json.loads(answer)[turn.door.state] in turn.door.ended:
            taken.ends.append(time.perf_counter() - began)
            return
        time.sleep(_POLL_PAUSE)


def _answer(connection: http.client.HTTPConnection) -> tuple[int, bytes]:
    response = connection.getresponse()
    return response.status, response.read()


def _form(image: Path) -> bytes:
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x.png"\r\n'
        "Content-Type: image/png\r\n\r\n"
    )
    return head.encode() + image.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()


def main() -> None:
    for line in sys.stdin:
        try:
            print(carry_out(Turn.model_validate_json(line)).model_dump_json(), flush=True)
        except (OSError, http.client.HTTPException) as error:
            print(json.dumps({"broke": str(error) or type(error).__name__}), flush=True)


if __name__ == "__main__":
    main()
