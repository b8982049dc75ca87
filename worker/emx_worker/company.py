"""Decides which jobs a worker has begun at the same time, as they die together."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_AGAIN = 0.2
"""Seconds between two looks at whether one who waits has given up."""


class Company:
    """Lets any number of jobs in together, and a suspect by itself.

    A worker's death counts against every job that it had begun. A suspect, with which a worker has died before,
    begins when all others have ended, and nobody begins beside it: so nobody else is blamed for what it does, nor
    it for what others do.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = self._suspects_waiting = 0
        self._suspect_inside = False

    @contextmanager
    def join(self, alone: bool, given_up: Callable[[], bool]) -> Iterator[bool]:
        """Wait to be let in, and leave at the end of the block.

        Args:
            alone: whether the job is a suspect.
            given_up: tells whether it needn't be let in any more.

        Yields:
            Whether it was let in; False if it has given up.
        """
        entered = self._enter(alone, given_up)
        try:
            yield entered
        finally:
            if entered:
                with self._changed:
                    self._inside -= 1
                    self._suspect_inside = False
                    self._changed.notify_all()

    def _enter(self, alone: bool, given_up: Callable[[], bool]) -> bool:
        with self._changed:
            self._suspects_waiting += alone
            try:
                while not given_up():
                    if self._may_enter(alone):
                        self._inside += 1
                        self._suspect_inside = alone
                        return True
                    self._changed.wait(_LOOK_AGAIN)
                return False
            finally:
                self._suspects_waiting -= alone

    def _may_enter(self, alone: bool) -> bool:
        if alone:
            return not self._inside
        return not self._suspect_inside and not self._suspects_waiting
