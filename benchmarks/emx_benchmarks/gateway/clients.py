"""Runs the clients in a process of their own (``emx_benchmarks.gateway.load``)."""

import json
import subprocess
import sys
from types import TracebackType

from emx_benchmarks.gateway.load import LoadTurn, TurnTimings


class ConnectionBroke(Exception):
    """A server broke off the connection. The text says how."""


class LoadClients:
    """The clients' process. It is started on entering the context, and stopped on leaving it."""

    def __enter__(self) -> "LoadClients":
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "emx_benchmarks.gateway.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def carry_out(self, turn: LoadTurn) -> TurnTimings:
        """Let the clients take a turn. Raises ConnectionBroke if the server breaks off."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(turn.model_dump_json() + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"broke": "the clients stopped"}')
        if "broke" in answer:
            raise ConnectionBroke(answer["broke"])
        return TurnTimings.model_validate(answer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
