"""What is told of a job while it is read, and of all jobs to who listens."""

import json
from dataclasses import dataclass

import httpx
from pydantic import BaseModel, ConfigDict

from explainmyxray.client.api import id_of
from explainmyxray.client.exchange import Call
from explainmyxray.client.patience import Patience
from explainmyxray.client.resources import Job, read_json
from explainmyxray.client.stream import ServerSentEvent, Subscription


@dataclass(frozen=True)
class StateChanged:
    state: str


@dataclass(frozen=True)
class TextWritten:
    """A piece of the report's text.

    Attributes:
        offset: characters before it. Where that is less than what there is already, another worker began again:
            ``written = written[:offset] + text``.
    """

    offset: int
    text: str


@dataclass(frozen=True)
class Ended:
    """The last event of a job."""

    job: Job


JobEvent = StateChanged | TextWritten | Ended


class SignedEvent(BaseModel):
    """A webhook as an endpoint would get it: ``body`` is to be sent as it is, or its signature breaks."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    headers: dict[str, str]
    body: str

    @property
    def type(self) -> str:
        """Such as ``job.succeeded``."""
        return str(json.loads(self.body).get("type", ""))

    @property
    def subject(self) -> str:
        """Id of the job or the batch."""
        return str(json.loads(self.body).get("data", {}).get("id", ""))


def job_events(job: Job | str, patience: Patience) -> Subscription[JobEvent]:
    call = Call("GET", f"/v1/jobs/{id_of(job)}/events", _nothing)
    return Subscription(call, _job_event, lambda event: isinstance(event, Ended), patience)


def all_events() -> Subscription[SignedEvent]:
    """Never over, and never tired of a server that is away."""
    call = Call("GET", "/v1/webhooks/listen", _nothing)
    return Subscription(call, _signed_event, lambda _: False, Patience(retries=None))


def _job_event(told: ServerSentEvent) -> JobEvent | None:
    """None for kinds that a newer server has. Raises ValueError."""
    if told.event == "ended":
        return Ended(read_json(Job, told.data.encode()))
    try:
        data = json.loads(told.data)
        if told.event == "state":
            return StateChanged(str(data["state"]))
        if told.event == "text":
            return TextWritten(int(data["offset"]), str(data["text"]))
    except (KeyError, TypeError) as error:
        raise ValueError(str(error)) from None
    return None


def _signed_event(told: ServerSentEvent) -> SignedEvent:
    """Raises ValueError."""
    return read_json(SignedEvent, told.data.encode())


def _nothing(answer: httpx.Response) -> None:
    return None
