"""/v1/webhooks: secrets, the delivery log, and trying an endpoint."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from redis.exceptions import RedisError
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from emx_gateway.api.dependencies import (
    Administrator,
    Audit,
    Cursor,
    GatewayServices,
    Moment,
    ReadCaller,
    link_to_next,
)
from emx_gateway.auth.authenticator import Caller
from emx_gateway.auth.streams import while_admitted
from emx_gateway.http.bodies import read_json, validate
from emx_gateway.http.problems import Problem, documented
from emx_gateway.schemas import DeliveryLine, DeliveryList, Ping, Pong, Redelivered, Secret
from emx_gateway.services.event_stream import tenant_events
from emx_gateway.services.job_pages import check_cursor
from emx_gateway.services.representations import delivery_resource
from emx_gateway.services.services import Services
from emx_gateway.services.webhook_sender import Sender
from emx_shared.contracts.times import rfc3339
from emx_shared.ledger import Ledger, send_at_once
from emx_shared.ledger import redeliver as owe_again
from emx_shared.ledger.records import Delivery, DeliveryStatus, UnreadableRecord
from emx_shared.redis_state.listings import Place

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
_GENERAL = documented(401, 403, 422, 429, 503)
_ONE = documented(401, 403, 404, 422, 429, 503)
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
_LOOKED_AT = 500
"""Deliveries that are looked at for one page."""

MOST_PINGS = 4
"""Endpoints tried at a time: each holds a thread until it answers."""
_pings = threading.Semaphore(MOST_PINGS)


@router.post("/secrets/rotate", responses=_GENERAL)
def rotate_secret(services: GatewayServices, caller: Administrator, audit: Audit) -> Secret:
    """Create a new signing secret; the first one too."""
    audit.note(caller, "webhook.rotate", caller.tenant)
    secret = services.secrets.rotate(caller.tenant)
    return Secret(secret=secret)


@router.post("/ping", openapi_extra=_PING, responses=documented(400, 401, 403, 413, 422, 429, 503))
async def ping(services: GatewayServices, caller: Administrator, request: Request) -> Pong:
    """Send the event ``ping`` to an endpoint now, and report how it answered."""
    url = validate(Ping, await read_json(request)).url
    return await run_in_threadpool(_ping, services, caller, url)


@router.get("/deliveries", responses=documented(400, 401, 403, 422, 429, 503))
def list_deliveries(
    services: GatewayServices,
    caller: ReadCaller,
    request: Request,
    response: Response,
    status: DeliveryStatus | None = None,
    job: Annotated[str | None, Query(max_length=36)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Cursor = None,
) -> DeliveryList:
    """List webhooks that are owed, delivered or undelivered, the newest first."""
    items, unreadable = list[DeliveryLine](), list[str]()
    places = _places(services, caller, cursor)
    next_cursor = places[-1][1] if len(places) == _LOOKED_AT else None
    for found, place in _readable(services.ledger, places, unreadable):
        if status in (None, found.status) and job in (None, found.job):
            items.append(delivery_resource(found))
        if len(items) == limit:
            next_cursor = place
            break
    link_to_next(request, response, "cursor", next_cursor)
    return DeliveryList(items=items, unreadable=unreadable, next_cursor=next_cursor)


@router.get("/deliveries/{id}", responses=_ONE)
def show_delivery(services: GatewayServices, caller: ReadCaller, id: str) -> DeliveryLine:
    """Fetch one delivery: its status, its tries and the endpoint's last answer."""
    return delivery_resource(_find(services, caller, id))


@router.post("/deliveries/{id}/redeliver", status_code=202, responses=documented(401, 403, 404, 422, 429, 503))
def redeliver(services: GatewayServices, caller: Administrator, audit: Audit, id: str) -> DeliveryLine:
    """Send an event now, with the ``webhook-id`` that it had.

    One that is still owed is tried at once, however its endpoint has been doing; of one that has ended a new
    delivery is made.
    """
    found = _find(services, caller, id)
    audit.note(caller, "webhook.redeliver", id)
    return delivery_resource(_send_again(services.ledger, found))


@router.post("/redeliver", status_code=202, responses=documented(400, 401, 403, 422, 429, 503))
def redeliver_many(
    services: GatewayServices,
    caller: Administrator,
    audit: Audit,
    created_after: Moment,
    created_before: Moment | None = None,
    status: Literal["owed", "undelivered", "delivered"] = "undelivered",
    cursor: Cursor = None,
) -> Redelivered:
    """Send the events of a time range again, such as those of an outage: up to 500 a request, newest first.

    Repeat it with ``cursor`` until there is none.
    """
    before = created_before or services.ledger.now()
    places = _places(services, caller, cursor)
    sent, unreadable, next_cursor = 0, list[str](), places[-1][1] if len(places) == _LOOKED_AT else None
    for found, _ in _readable(services.ledger, places, unreadable):
        if found.created_at < created_after:
            next_cursor = None
            break
        if found.created_at <= before and found.status == status:
            audit.note(caller, "webhook.redeliver", found.id)
            _send_again(services.ledger, found)
            sent += 1
    return Redelivered(redelivered=sent, unreadable=unreadable, next_cursor=next_cursor)


@router.get(
    "/listen",
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {}}}, **_GENERAL},
)
async def listen(
    services: GatewayServices, caller: ReadCaller, audit: Audit, request: Request
) -> EventSourceResponse:
    """Stream every event of this tenant from now on, signed as a webhook: for ``emx listen``, while developing."""
    events = while_admitted(request, caller, tenant_events(services, caller, audit))
    return EventSourceResponse(events, headers={"Cache-Control": "no-store"})


def _places(services: Services, caller: Caller, cursor: str | None) -> list[Place]:
    check_cursor(cursor)
    try:
        return services.ledger.redis.listings.deliveries(caller.tenant, cursor, _LOOKED_AT)
    except RedisError:
        detail = "The delivery log is unavailable for the moment. Try again later."
        raise Problem(503, "list-unavailable", detail, {"Retry-After": "5"}) from None


def _readable(ledger: Ledger, places: list[Place], unreadable: list[str]) -> Iterator[tuple[Delivery, str]]:
    """Yield the deliveries of a page with their places; the ids of those that can't be read go to a list."""
    for id, place in places:
        try:
            if found := ledger.delivery(id):
                yield found, place
        except UnreadableRecord:
            unreadable.append(id)


def _send_again(ledger: Ledger, delivery: Delivery) -> Delivery:
    return send_at_once(ledger, delivery) if delivery.status == "owed" else owe_again(ledger, delivery)


def _ping(services: Services, caller: Caller, url: str) -> Pong:
    services.submissions.check_webhook(url, caller.tenant)
    event = {"type": "ping", "timestamp": rfc3339(services.ledger.now()), "data": {}}
    with _few_at_a_time():
        answer = Sender(services.ledger).post(url, caller.tenant, str(uuid.uuid4()), event)
    return Pong(status=answer.status, why=answer.why, ok=answer.ok)


@contextmanager
def _few_at_a_time() -> Iterator[None]:
    """Bound how many endpoints are tried at a time. Raises Problem 429."""
    if not _pings.acquire(blocking=False):
        detail = f"{MOST_PINGS} endpoints are being tried already. Try again when one has answered."
        raise Problem(429, "too-many-pings", detail, {"Retry-After": "5"})
    try:
        yield
    finally:
        _pings.release()


def _find(services: Services, caller: Caller, id: str) -> Delivery:
    try:
        found = services.ledger.delivery(str(uuid.UUID(id)))
    except ValueError:
        found = None
    if found is None or found.tenant != caller.tenant:
        raise Problem(404, "no-such-delivery", "There is no delivery with this id.")
    return found
