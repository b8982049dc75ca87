"""/healthz, /readyz and /metrics."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from emx_gateway.services.service import Services
from emx_shared.messaging import COURIER_QUEUE, READ_QUEUES
from emx_shared.prometheus_metrics import QUEUE_DEPTH, REDIS_UP, WORKERS
from emx_shared.store import StoreError

router = APIRouter(tags=["operation"])


@router.get("/healthz", response_class=PlainTextResponse)
def healthz() -> PlainTextResponse:
    """The gateway's process is alive."""
    return PlainTextResponse("ok")


@router.get(
    "/readyz",
    responses={
        503: {"description": "Something that a report needs is missing", "content": {"application/json": {}}}
    },
)
def readyz(service: Services) -> JSONResponse:
    """Redis, the store and at least one worker with a loaded model are there."""
    checks = {
        "redis": service.ledger.redis.ping(),
        "store": _store_answers(service),
        "worker": service.ledger.redis.workers.count() > 0,
    }
    return JSONResponse({"ready": all(checks.values()), "checks": checks}, 200 if all(checks.values()) else 503)


@router.get("/metrics", include_in_schema=False)
def metrics(service: Services) -> Response:
    """Prometheus metrics of the gateway, queue depths included."""
    QUEUE_DEPTH.clear()  # while Redis is away, nothing is better than what was
    for queue, depth in service.ledger.redis.turns.queue_depths((*READ_QUEUES, COURIER_QUEUE)).items():
        QUEUE_DEPTH.labels(queue).set(depth)
    REDIS_UP.set(service.ledger.redis.ping())
    WORKERS.set(service.ledger.redis.workers.count())
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _store_answers(service: Services) -> bool:
    try:
        service.ledger.store.exists("probe/readyz")
    except StoreError:
        return False
    return True
