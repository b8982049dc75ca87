"""Threads that give everybody a turn, however much work one of them has."""

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
Group = tuple[str, str]
"""An owner, such as a tenant, and a name, such as an endpoint of that tenant's."""


class FairThreads:
    """A pool of threads. Groups of work take turns, and none takes all threads.

    Unlike ``ThreadPoolExecutor``, which does what comes first: there, one who submits a thousand slow pieces of
    work keeps all others waiting.
    """

    def __init__(self, threads: int, name: str, per_owner: int, per_group: int | None = None) -> None:
        """Start the threads.

        Args:
            threads: how many.
            name: what they are for.
            per_owner: most threads that work for one owner at a time.
            per_group: most that work for one group of an owner; None for as many.
        """
        self._per_owner, self._per_group = per_owner, per_group or per_owner
        self._waiting: OrderedDict[Group, deque[tuple[Future[Any], Callable[[], Any]]]] = OrderedDict()
        self._groups: Counter[Group] = Counter()
        self._owners: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._closed = False
        for number in range(threads):
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True).start()

    def submit(self, owner: str, work: Callable[[], T], group: str = "") -> "Future[T]":
        """Do work when its turn comes. Cancelling the returned future takes it back if it hasn't begun."""
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("these threads were closed")
            self._waiting.setdefault((owner, group), deque()).append((future, work))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Drop what waits; what was begun is done to its end."""
        with self._changed:
            self._closed = True
            for line in self._waiting.values():
                for future, _ in line:
                    future.cancel()
            self._waiting.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            group, future, work = taken
            try:
                if future.set_running_or_notify_cancel():
                    future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            with self._changed:
                self._count(group, -1)
                self._changed.notify()
            del future, work, taken  # they may hold an image

    def _take(self) -> tuple[Group, "Future[Any]", Callable[[], Any]] | None:
        with self._changed:
            while (group := self._next()) is None:
                if self._closed:
                    return None
                self._changed.wait()
            line = self._waiting[group]
            future, work = line.popleft()
            self._waiting.move_to_end(group)
            if not line:
                del self._waiting[group]
            self._count(group, 1)
            return group, future, work

    def _next(self) -> Group | None:
        """Return the first group in turn that may have another thread."""
        for group in self._waiting:
            if self._groups[group] < self._per_group and self._owners[group[0]] < self._per_owner:
                return group
        return None

    def _count(self, group: Group, change: int) -> None:
        self._groups[group] += change
        self._owners[group[0]] += change
        if not self._groups[group]:
            del self._groups[group]
        if not self._owners[group[0]]:
            del self._owners[group[0]]
