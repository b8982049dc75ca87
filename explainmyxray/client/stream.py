"""Server-sent events (WHATWG HTML, 9.2), over as many connections as it takes, without input or output."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import httpx

from explainmyxray.client.errors import error_of, unexpected
from explainmyxray.client.exchange import Call
from explainmyxray.client.patience import Patience

E = TypeVar("E")
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True)
class ServerSentEvent:
    event: str
    data: str
    id: str


@dataclass
class EventParser:
    """Bytes as they arrive, to events. ``last_id``: that of the last whole event, from where a stream goes on."""

    last_id: str = ""
    _id: str | None = None
    _rest: bytes = b""
    _after_return: bool = False
    _event: str = ""
    _data: list[str] = field(default_factory=list)

    def feed(self, received: bytes) -> Iterator[ServerSentEvent]:
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
class Subscription(Generic[E]):
    """A stream that is connected again where it broke off (``Last-Event-ID``).

    Parameters:
        call: what opens it.
        read: the meaning of an event; None for those that mean nothing here. Raises ValueError.
        is_last: whether an event is the stream's end.
    """

    call: Call[None]
    read: Callable[[ServerSentEvent], E | None]
    is_last: Callable[[E], bool]
    patience: Patience
    over: bool = False
    _parser: EventParser = field(default_factory=EventParser)
    _tries: int = 0

    def opening(self) -> Call[None]:
        """The request for the next connection."""
        last_id = self._parser.last_id
        self._parser = EventParser(last_id)
        return replace(self.call, headers={"Last-Event-ID": last_id}) if last_id else self.call

    def feed(self, answer: httpx.Response, received: bytes) -> Iterator[E]:
        """Raises ApiError for what can't be understood."""
        for told in self._parser.feed(received):
            self._tries = 0
            try:
                event = self.read(told)
            except ValueError:
                raise unexpected(answer) from None
            if event is not None:
                self.over = self.is_last(event)
                yield event

    def pause(self, trouble: httpx.Response | httpx.TransportError | None) -> float:
        """Seconds until the next connection; None is an end that came too soon. Raises ApiError to give up."""
        self._tries += 1
        error = error_of(httpx.RemoteProtocolError("the stream ended too soon") if trouble is None else trouble)
        seconds = self.patience.pause(self._tries, error)
        if seconds is None:
            raise error
        return seconds

    @staticmethod
    def check(answer: httpx.Response) -> None:
        """Raises ApiError: a success that is no stream of events is somebody else's."""
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if answer.is_success and kind != "text/event-stream":
            raise unexpected(answer)
