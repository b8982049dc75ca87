"""When to ask again, and after how long."""

import random
from dataclasses import dataclass

from explainmyxray.client.errors import ApiError

_PASSING = (None, 429, 502, 503, 504)
"""Statuses that may be others the next time; None is no answer at all."""


@dataclass(frozen=True)
class Patience:
    """Exponential backoff with full jitter, as in Brooker, *Exponential Backoff and Jitter* (AWS, 2015).

    Parameters:
        retries: how often to ask again; None for ever.
        first, longest: seconds; the bounds of the pause double from the one up to the other.
        longest_asked: seconds; a server that asks for more (``Retry-After``) isn't waited for.
    """

    retries: int | None = 4
    first: float = 0.5
    longest: float = 8.0
    longest_asked: float = 60.0

    def pause(self, tries: int, error: ApiError) -> float | None:
        """Seconds until the next try, after so many; None to give up."""
        spent = self.retries is not None and tries > self.retries
        asked = error.retry_after or 0.0
        if spent or error.status not in _PASSING or asked > self.longest_asked:
            return None
        return asked + random.uniform(0, min(self.longest, self.first * 2 ** min(tries - 1, 30)))
