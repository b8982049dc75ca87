"""One request with its retries, without any input or output: the clients carry out what is yielded here."""

import itertools
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx

from explainmyxray.client.errors import error_of, unexpected
from explainmyxray.client.patience import Patience

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and what its answer means.

    Attributes:
        path: below the server's address; or a whole URL.
        read: the meaning of a success. Raises ValueError for one that can't be understood.
        answers: statuses beside 2xx that are a success.
        done_if_repeated: statuses that mean, on a second try, that the first one did it.
        keyed: the API key is shown. A URL that carries its own permission never sees it.
        patience: seconds that the server is allowed beyond the client's own timeout.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    form: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[tuple[str, bytes]] = ()
    content: bytes | None = None
    answers: tuple[int, ...] = ()
    done_if_repeated: tuple[int, ...] = ()
    keyed: bool = True
    patience: float = 0.0


@dataclass(frozen=True)
class Pause:
    seconds: float


Step = Call[Any] | Pause
Answer = httpx.Response | httpx.TransportError | None
"""To a call; None to a pause."""

Flow = Generator[Step, Answer, T]
"""Yields what is to be done, is sent what came of it, and returns the result."""


def exchange(call: Call[T], patience: Patience) -> Flow[T]:
    """Raises ApiError."""
    for tries in itertools.count(1):
        answer = yield call
        assert answer is not None
        good = call.answers + (call.done_if_repeated if tries > 1 else ())
        if isinstance(answer, httpx.Response) and (answer.is_success or answer.status_code in good):
            try:
                return call.read(answer)
            except ValueError:
                raise unexpected(answer) from None
        error = error_of(answer)
        seconds = patience.pause(tries, error)
        if seconds is None:
            raise error
        yield Pause(seconds)
    raise AssertionError("count never ends")
