"""Events of a job while it is read, and webhooks of all jobs for a developer who listens."""

import json
from dataclasses import dataclass

from explainmyxray.client.requests import ApiRequest, as_nothing, id_of
from explainmyxray.client.resources import Job, Resource, read_json
from explainmyxray.client.retry_policy import RetryPolicy
from explainmyxray.client.streams import EventSubscription, ServerSentEvent, Subscription


@dataclass(frozen=True)
class StateChanged:
    """The job's state has changed.

    Attributes:
        state: The new state, such as ``running``.
    """

    state: str


@dataclass(frozen=True)
class TextWritten:
    """The model has written a piece of the report's text.

    Attributes:
        offset: Characters before the piece. If it is less than the length received so far, another worker has
            begun again: ``written = written[:offset] + text``.
        text: The piece.
    """

    offset: int
    text: str


@dataclass(frozen=True)
class Ended:
    """The job has ended; its last event.

    Attributes:
        job: The job, with its report if it succeeded.
    """

    job: Job


JobEvent = StateChanged | TextWritten | Ended


class SignedEvent(Resource):
    """A webhook exactly as an endpoint would receive it.

    Attributes:
        headers: The headers, with the signature.
        body: The body. Forward it unchanged, or its signature becomes invalid.
    """

    headers: dict[str, str]
    body: str

    @property
    def type(self) -> str:
        """Type of the event, such as ``job.succeeded``."""
        return str(json.loads(self.body).get("type", ""))

    @property
    def subject(self) -> str:
        """Id of the job or batch."""
        return str(json.loads(self.body).get("data", {}).get("id", ""))


def subscribe_to_job(job: Job | str, retry_policy: RetryPolicy) -> Subscription[JobEvent]:
    """Subscribe to a job's events, from its beginning to its end."""
    request = ApiRequest("GET", f"/v1/jobs/{id_of(job)}/events", as_nothing)
    return EventSubscription(
        request, retry_policy, parse=_job_event, is_last=lambda event: isinstance(event, Ended)
    )


def subscribe_to_webhooks() -> Subscription[SignedEvent]:
    """Subscribe to all webhooks from now on. It never ends, and waits for an unavailable server without limit."""
    request = ApiRequest("GET", "/v1/webhooks/listen", as_nothing)
    return EventSubscription(request, RetryPolicy(retries=None), parse=_signed_event, is_last=lambda _: False)


def _job_event(sent: ServerSentEvent) -> JobEvent | None:
    """Parse an event; None for types that only a newer server has. Raises ValueError."""
    if sent.event == "ended":
        return Ended(read_json(Job, sent.data.encode()))
    try:
        data = json.loads(sent.data)
        if sent.event == "state":
            return StateChanged(str(data["state"]))
        if sent.event == "text":
            return TextWritten(int(data["offset"]), str(data["text"]))
    except (KeyError, TypeError) as error:
        raise ValueError(str(error)) from None
    return None


def _signed_event(sent: ServerSentEvent) -> SignedEvent:
    """Parse a webhook. Raises ValueError."""
    return read_json(SignedEvent, sent.data.encode())
