"""Submits and polls as many clients do, in a process of its own: ``python -m emx_benchmarks.gateway.load``.

Reads a ``LoadTurn`` from each line of its input, carries it out, and writes a line with its ``TurnTimings``.
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
_POLL_SECONDS = 0.005
_TIMEOUT_SECONDS = 30.0


class JobEndpoint(BaseModel):
    """How jobs are submitted to a server and polled.

    Attributes:
        port: of the server on this machine.
        submit: path to which a form with ``file`` is posted.
        poll: path of a job's state, with ``{id}`` in it; None if the server has no jobs.
        id: key of a job's id in the JSON of a submission's answer.
        state: key of its state in the JSON of a poll's answer.
        ended: the states of a finished job.
    """

    model_config = ConfigDict(frozen=True)

    port: int
    submit: str
    poll: str | None = None
    id: str = "id"
    state: str = "state"
    ended: tuple[str, ...] = ()


class LoadTurn(BaseModel):
    """The load of one system's turn.

    Attributes:
        endpoint: of the system.
        image: file that each submission sends.
        clients: that submit at the same time, each over one persistent connection.
        seconds: after which no client begins another submission.
        most: largest number of submissions.
        to_the_end: whether each client polls its job until it is finished before it submits the next.
    """

    endpoint: JobEndpoint
    image: Path
    clients: int
    seconds: float
    most: int
    to_the_end: bool = False


class TurnTimings(BaseModel):
    """The times of one turn, in seconds.

    Attributes:
        submits: from the request to the answer, of each accepted submission.
        ends: from the request until a poll says that the job is finished, of each job.
        seconds: of the whole turn.
        refused: how many submissions were not accepted.
    """

    submits: list[float] = []
    ends: list[float] = []
    seconds: float = 0.0
    refused: int = 0

    @property
    def rate(self) -> float:
        """Return the accepted submissions per second."""
        return len(self.submits) / self.seconds


def carry_out(turn: LoadTurn) -> TurnTimings:
    """Take a turn. Raises OSError or HTTPException if the server breaks off."""
    body, turns, timings = _form(turn.image), itertools.count(), TurnTimings()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", turn.endpoint.port, timeout=_TIMEOUT_SECONDS)
        connection.connect()
        while time.perf_counter() < until and next(turns) < turn.most:
            _submit(connection, turn, body, timings)
        connection.close()

    with ThreadPoolExecutor(turn.clients) as pool:
        began = time.perf_counter()
        until = began + turn.seconds
        clients = [pool.submit(client) for _ in range(turn.clients)]
        for finished in clients:
            finished.result()
    timings.seconds = time.perf_counter() - began
    return timings


def _submit(connection: http.client.HTTPConnection, turn: LoadTurn, body: bytes, timings: TurnTimings) -> None:
    began = time.perf_counter()
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    connection.request("POST", turn.endpoint.submit, body, headers)
    status, answer = _answer(connection)
    if not 200 <= status < 300:
        timings.refused += 1
        return
    timings.submits.append(time.perf_counter() - began)
    if not turn.to_the_end or turn.endpoint.poll is None:
        return
    path = turn.endpoint.poll.format(id=json.loads(answer)[turn.endpoint.id])
    while time.perf_counter() - began < _TIMEOUT_SECONDS:
        connection.request("GET", path)
        status, answer = _answer(connection)
        if status == 200 and json.loads(answer)[turn.endpoint.state] in turn.endpoint.ended:
            timings.ends.append(time.perf_counter() - began)
            return
        time.sleep(_POLL_SECONDS)


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
    """Carry out the turns of standard input."""
    for line in sys.stdin:
        try:
            print(carry_out(LoadTurn.model_validate_json(line)).model_dump_json(), flush=True)
        except (OSError, http.client.HTTPException) as error:
            print(json.dumps({"broke": str(error) or type(error).__name__}), flush=True)


if __name__ == "__main__":
    main()
