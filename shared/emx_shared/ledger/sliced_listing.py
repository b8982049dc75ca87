"""A long listing of the store, gone through in slices."""

import math
import time
from collections.abc import Callable, Iterator
from itertools import islice

from emx_shared.store import Entry

SLICE = 500
"""Entries."""


class SlicedListing:
    """Goes through what is listed again and again, a few slices at each call.

    Attributes:
        at_end: whether the last call came to the end.
    """

    def __init__(self, begin: Callable[[], Iterator[Entry]], every: float = 0.0) -> None:
        """Set what is listed, and how many seconds one begin comes after the other at least."""
        self.at_end = True
        self._begin, self._every = begin, every
        self._begun_at = -math.inf
        self._left: Iterator[Entry] | None = None

    def slices(self, seconds: float) -> Iterator[list[Entry]]:
        """Yield slices until so many seconds have passed, but one at least, or until the end.

        The next call goes on from there; after an error it begins anew, so that nothing is left out.
        """
        now = time.monotonic()
        if self._left is None and now - self._begun_at < self._every:
            return
        if self._left is None:
            self._begun_at, self.at_end = now, False
        left, self._left = self._left or self._begin(), None
        while some := list(islice(left, SLICE)):
            yield some
            if time.monotonic() - now > seconds:
                self._left = left
                return
        self.at_end = True
