"""When to send a request again, and after how long."""

import random
from dataclasses import dataclass

from explainmyxray.client.errors import ApiError

_TEMPORARY = (None, 429, 502, 503, 504)
"""HTTP statuses that may change by themselves; None stands for no answer at all."""


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter, as in Brooker, *Exponential Backoff and Jitter* (AWS, 2015).

    Attributes:
        retries: How often a request is sent again; None for no limit.
        first_pause: Upper bound of the first pause, in seconds. It doubles with each retry.
        longest_pause: Upper bound of every later pause, in seconds.
        longest_retry_after: Longest ``Retry-After`` that is waited for, in seconds. If the server asks for more,
            the error is raised at once.
    """

    retries: int | None = 4
    first_pause: float = 0.5
    longest_pause: float = 8.0
    longest_retry_after: float = 60.0

    def pause(self, attempts: int, error: ApiError) -> float | None:
        """Decide how long to wait before the next attempt.

        Args:
            attempts: Number of attempts so far, at least 1.
            error: The error of the last attempt.

        Returns:
            Seconds to wait, or None if the request shouldn't be sent again.
        """
        exhausted = self.retries is not None and attempts > self.retries
        retry_after = error.retry_after or 0.0
        if exhausted or error.status not in _TEMPORARY or retry_after > self.longest_retry_after:
            return None
        bound = min(self.longest_pause, self.first_pause * 2 ** min(attempts - 1, 30))
        return retry_after + random.uniform(0, bound)
