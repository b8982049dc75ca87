"""The process that has the clients, as the bench sees it."""

import json
import subprocess
import sys
from types import TracebackType

from emx_benchmarks.gateway.load import Taken, Turn


class Broken(Exception):
    """The server broke off; the text says how."""


class Clients:
    """Started on entering, stopped on leaving."""

    def __enter__(self) -> "Clients":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "emx_benchmarks.gateway.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def carry_out(self, turn: Turn) -> Taken:
        """Raises Broken."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(turn.model_dump_json() + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"broke": "the clients stopped"}')
        if "broke" in answer:
            raise Broken(answer["broke"])
        return Taken.model_validate(answer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
