"""/v1/webhooks: secrets, what was delivered, and trying an endpoint."""

import json
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from redis.exceptions import RedisError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from emx_gateway.auth.audit import Audit, Audits
from emx_gateway.auth.authenticator import Admin, Caller, Reader
from emx_gateway.courier.sender import Sender, event
from emx_gateway.http.bodies import fitted, read_json
from emx_gateway.http.problems import Problem, documented
from emx_gateway.services.job_pages import is_place
from emx_gateway.services.service import Service, Services
from emx_shared.ledger import redeliver
from emx_shared.ledger.records import Delivery, DeliveryStatus

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
_GENERAL = documented(401, 403, 422, 429, 503)
_ONE = documented(401, 403, 404, 422, 429, 503)
MOST_PINGS = 4
"""Endpoints tried at a time: each holds a thread until it answers."""
_pings = threading.Semaphore(MOST_PINGS)


class Secret(BaseModel):
    secret: str = Field(description="whsec_…, shown this once")
    former_valid_hours: int = Field(
        default=24, description="For so long events are signed with the former one too"
    )


class Ping(BaseModel):
    url: str = Field(max_length=2048)


_PING = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": Ping.model_json_schema(),
                "example": {"url": "https://ris.example.org/hooks/xray"},
            }
        },
    }
}


class Pong(BaseModel):
    """How an endpoint answered."""

    status: int | None = Field(description="HTTP status; null if there was no answer")
    why: str = Field(description="Why there was no answer")
    ok: bool


class DeliveryLine(BaseModel):
    """One event on its way to one endpoint."""

    id: str
    message: str = Field(description="The header webhook-id: the same when an event is sent again")
    job: str
    url: str
    event: str
    status: DeliveryStatus
    tries: int
    created_at: datetime
    next_try_at: datetime | None
    last_answer: str = Field(description="HTTP status of the last try, or why there was none")


class DeliveryList(BaseModel):
    items: list[DeliveryLine]
    next_cursor: str | None


@router.post("/secrets/rotate", responses=_GENERAL)
def rotate_secret(service: Services, caller: Admin, audit: Audits) -> Secret:
    """Make a new signing secret, and the first one too."""
    made = service.secrets.rotate(caller.tenant)
    audit.note(caller, "webhook.rotate", caller.tenant)
    return Secret(secret=made)


@router.post("/ping", openapi_extra=_PING, responses=documented(400, 401, 403, 413, 422, 429, 503))
async def ping(service: Services, caller: Admin, request: Request) -> Pong:
    """Send the event ``ping`` to an endpoint now, and tell how it answered."""
    url = fitted(Ping, await read_json(request)).url
    return await run_in_threadpool(_ping, service, caller, url)


@router.get("/deliveries", responses=documented(400, 401, 403, 422, 429, 503))
def list_deliveries(
    service: Services,
    caller: Reader,
    status: DeliveryStatus | None = None,
    job: Annotated[str | None, Query(max_length=36)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=100)] = None,
) -> DeliveryList:
    """What is owed, delivered and undelivered, the newest first."""
    if cursor is not None and not is_place(cursor):
        raise Problem(400, "bad-cursor", "This cursor is none of ours: begin again without one.")
    items: list[DeliveryLine] = []
    try:
        places = service.ledger.redis.listings.deliveries(caller.tenant, cursor, 500)
    except RedisError:
        detail = "The delivery log is away for the moment."
        raise Problem(503, "list-unavailable", detail, {"Retry-After": "5"}) from None
    next_cursor = places[-1][1] if len(places) == 500 else None
    for id, place in places:
        found = service.ledger.delivery(id)
        if found and status in (None, found.status) and job in (None, found.job):
            items.append(_line(found))
        if len(items) == limit:
            next_cursor = place
            break
    return DeliveryList(items=items, next_cursor=next_cursor)


@router.get("/deliveries/{id}", responses=_ONE)
def show_delivery(service: Services, caller: Reader, id: str) -> DeliveryLine:
    return _line(_find(service, caller, id))


@router.post(
    "/deliveries/{id}/redeliver", status_code=202, responses=documented(401, 403, 404, 409, 422, 429, 503)
)
def redeliver_one(service: Services, caller: Admin, audit: Audits, id: str) -> DeliveryLine:
    """Send an event again, with the ``webhook-id`` that it had."""
    ended = _find(service, caller, id)
    if ended.status == "owed":
        raise Problem(409, "still-owed", "This delivery is still being tried.")
    again = redeliver(service.ledger, ended)
    audit.note(caller, "webhook.redeliver", again.id)
    return _line(again)


@router.get(
    "/listen",
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {}}}, **_GENERAL},
)
async def listen(service: Services, caller: Reader, audit: Audits, request: Request) -> EventSourceResponse:
    """Every event of this tenant from now on, signed as a webhook: for ``emx listen``, while developing."""
    return EventSourceResponse(_heard(service, caller, audit), headers={"Cache-Control": "no-store"})


def _ping(service: Service, caller: Caller, url: str) -> Pong:
    service.check_webhook(url, caller.tenant)
    now = service.ledger.store.now()
    content = {"type": "ping", "timestamp": now.isoformat(), "data": {}}
    with _few_at_a_time():
        answer = Sender(service.ledger).post(url, caller.tenant, str(uuid.uuid4()), content)
    return Pong(status=answer.status, why=answer.why, ok=answer.ok)


async def _heard(service: Service, caller: Caller, audit: Audit) -> AsyncIterator[ServerSentEvent]:
    sender = Sender(service.ledger)

    def signed(job: str) -> ServerSentEvent | None:
        found, outcome = service.ledger.request(job), service.ledger.outcome(job)
        if found is None or outcome is None or found.tenant != caller.tenant:
            return None
        kind = f"{found.kind}.{outcome.state}"
        message = Delivery.id_of(job, "listen", kind)
        content = event(service.ledger, job, kind, outcome.finished_at)
        body, headers = sender.signed(caller.tenant, message, content)
        if outcome.report:
            audit.note(caller, "report.read", job)
        return ServerSentEvent(json.dumps({"headers": headers, "body": body.decode()}), event=kind, id=message)

    with service.waiting.hearing_all() as ended:
        while True:
            made = await run_in_threadpool(signed, await ended.get())
            if made is not None:
                yield made


@contextmanager
def _few_at_a_time() -> Iterator[None]:
    """Raises Problem 429."""
    if not _pings.acquire(blocking=False):
        detail = f"{MOST_PINGS} endpoints are being tried already: try again when one has answered."
        raise Problem(429, "too-many-pings", detail, {"Retry-After": "5"})
    try:
        yield
    finally:
        _pings.release()


def _find(service: Service, caller: Caller, id: str) -> Delivery:
    try:
        found = service.ledger.delivery(str(uuid.UUID(id)))
    except ValueError:
        found = None
    if found is None or found.tenant != caller.tenant:
        raise Problem(404, "no-such-delivery", "There is no delivery with this id.")
    return found


def _line(found: Delivery) -> DeliveryLine:
    return DeliveryLine(
        id=found.id,
        message=found.message or found.id,
        job=found.job,
        url=found.url,
        event=found.event,
        status=found.status,
        tries=found.tries,
        created_at=found.created_at,
        next_try_at=found.next_at if found.status == "owed" else None,
        last_answer=found.last_answer,
    )
