"""Streams over as many connections as they take, without any input or output: both clients feed them."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import httpx

from explainmyxray.client.errors import api_error, unexpected_answer
from explainmyxray.client.requests import NDJSON, ApiRequest
from explainmyxray.client.resources import BatchResult, read_json
from explainmyxray.client.retry_policy import RetryPolicy

E = TypeVar("E")
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class ServerSentEvent:
    """An event of a stream (WHATWG HTML, 9.2).

    Attributes:
        event: The event's type; ``message`` if the stream doesn't name one.
        data: Its data, with lines joined by line feeds.
        id: Id of the last event that had one.
    """

    event: str
    data: str
    id: str


@dataclass
class EventParser:
    """Turns bytes, cut anywhere, into server-sent events.

    Attributes:
        last_id: Id of the last whole event, from which a stream resumes.
    """

    last_id: str = ""
    _id: str | None = None
    _rest: bytes = b""
    _after_return: bool = False
    _event: str = ""
    _data: list[str] = field(default_factory=list)

    def feed(self, received: bytes) -> Iterator[ServerSentEvent]:
        """Take more bytes, and yield the events that they complete."""
        if self._after_return:  # the first half of \r\n ended the line already
            received = received.removeprefix(b"\n")
        self._after_return = received.endswith(b"\r")
        *lines, self._rest = _LINE_END.split(self._rest + received)
        for line in lines:
            if line:
                self._take(*line.decode(errors="replace").partition(":"))
                continue
            event, data = self._event or "message", self._data
            self._event, self._data = "", []
            self.last_id = self.last_id if self._id is None else self._id
            if data:
                yield ServerSentEvent(event, "\n".join(data), self.last_id)

    def _take(self, name: str, colon: str, value: str) -> None:
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value


@dataclass
class Subscription(ABC, Generic[E]):
    """A stream that is opened again where it broke. It belongs to one caller.

    Attributes:
        request: What opens the stream.
        retry_policy: How often the stream is opened again without receiving anything in between.
        over: Whether the stream has ended as it should.
    """

    request: ApiRequest[None]
    retry_policy: RetryPolicy
    over: bool = False
    _attempts: int = 0

    media_type = ""

    @abstractmethod
    def opening(self) -> ApiRequest[None]:
        """Return the request for the next connection."""

    @abstractmethod
    def feed(self, answer: httpx.Response, received: bytes) -> Iterator[E]:
        """Take more bytes, and yield the events that they complete.

        Raises:
            ApiError: The content isn't that of an ExplainMyXray server.
        """

    def end_of_connection(self) -> None:
        """Take note that the server has closed the connection regularly."""

    def pause(self, trouble: httpx.Response | httpx.RequestError | None) -> float:
        """Decide how long to wait before the next connection.

        Args:
            trouble: Why the last connection ended; None if it was closed too soon.

        Returns:
            Seconds to wait.

        Raises:
            ApiError: The stream shouldn't be opened again.
        """
        self._attempts += 1
        closed = httpx.RemoteProtocolError("the stream ended too soon")
        error = api_error(closed if trouble is None else trouble)
        seconds = self.retry_policy.pause(self._attempts, error)
        if seconds is None:
            raise error
        return seconds

    def check(self, answer: httpx.Response) -> None:
        """Check that a success is a stream of the expected type.

        Raises:
            ApiError: It comes from something else than an ExplainMyXray server.
        """
        media_type = answer.headers.get("content-type", "").partition(";")[0]
        if answer.is_success and media_type != self.media_type:
            raise unexpected_answer(answer)


@dataclass
class EventSubscription(Subscription[E]):
    """Server-sent events, resumed after the last event received (``Last-Event-ID``).

    Attributes:
        parse: Turns a server-sent event into the caller's; None for types that are unknown here. Raises ValueError
            for content that isn't the server's.
        is_last: Tells whether an event is the stream's last.
    """

    parse: Callable[[ServerSentEvent], E | None] = field(kw_only=True)
    is_last: Callable[[E], bool] = field(kw_only=True)
    _parser: EventParser = field(default_factory=EventParser)

    media_type = "text/event-stream"

    def opening(self) -> ApiRequest[None]:
        """Return a request that asks for what follows the last event received."""
        last_id = self._parser.last_id
        self._parser = EventParser(last_id)
        return replace(self.request, headers={"Last-Event-ID": last_id}) if last_id else self.request

    def feed(self, answer: httpx.Response, received: bytes) -> Iterator[E]:
        """Take more bytes, and yield the events that they complete.

        Raises:
            ApiError: The content isn't that of an ExplainMyXray server.
        """
        for sent in self._parser.feed(received):
            self._attempts = 0
            try:
                event = self.parse(sent)
            except ValueError:
                raise unexpected_answer(answer) from None
            if event is not None:
                self.over = self.is_last(event)
                yield event


@dataclass
class ResultSubscription(Subscription[BatchResult]):
    """A batch's results in NDJSON, resumed after the last row received. Rows that come twice are left out.

    Attributes:
        follow: Whether the server keeps the stream open until the batch has ended. Silence is normal then: it
            means that no item has ended.
        after: Cursor of the last result that the caller has; None to start with the first.
    """

    follow: bool = False
    after: str | None = None
    _rows: set[int] = field(default_factory=set)
    _rest: bytes = b""
    _open: bool = False

    media_type = NDJSON

    def opening(self) -> ApiRequest[None]:
        """Return a request that asks for what follows the last row received."""
        self._rest, self._open = b"", False
        resumed = {"after": self.after} if self.after else {}
        return replace(self.request, params={**self.request.params, **resumed})

    def check(self, answer: httpx.Response) -> None:
        """Check that a success is NDJSON.

        Raises:
            ApiError: It comes from something else than an ExplainMyXray server.
        """
        super().check(answer)
        self._open = answer.is_success

    def feed(self, answer: httpx.Response, received: bytes) -> Iterator[BatchResult]:
        """Take more bytes, and yield the results that they complete.

        Raises:
            ApiError: The content isn't that of an ExplainMyXray server.
        """
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in filter(None, lines):  # an empty line only shows that the connection lives
            try:
                result = read_json(BatchResult, line)
            except ValueError:
                raise unexpected_answer(answer) from None
            self.after = result.cursor
            if result.row not in self._rows:
                self._attempts = 0
                self._rows.add(result.row)
                yield result

    def end_of_connection(self) -> None:
        """Take note that the server has sent everything."""
        self.over = True

    def pause(self, trouble: httpx.Response | httpx.RequestError | None) -> float:
        """Decide how long to wait before the next connection, which silence while following doesn't delay.

        Raises:
            ApiError: The stream shouldn't be opened again.
        """
        if self.follow and self._open and isinstance(trouble, httpx.ReadTimeout):
            return 0.0
        return super().pause(trouble)
