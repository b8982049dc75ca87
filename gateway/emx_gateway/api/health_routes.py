"""/healthz, /readyz and /metrics."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from emx_gateway.api.dependencies import GatewayServices
from emx_gateway.services.services import Services
from emx_shared.messaging import COURIER_QUEUE, READ_QUEUES
from emx_shared.prometheus_metrics import QUEUE_DEPTH, REDIS_UP, WORKERS
from emx_shared.store import StoreError

router = APIRouter(tags=["operation"])


@router.get("/healthz", response_class=PlainTextResponse)
def healthz() -> PlainTextResponse:
    """Tell that the gateway's process is alive."""
    return PlainTextResponse("ok")


@router.get(
    "/readyz",
    responses={
        503: {"description": "Something that a report needs is unavailable", "content": {"application/json": {}}}
    },
)
def readyz(services: GatewayServices) -> JSONResponse:
    """Tell whether Redis, the store and at least one worker with a loaded model are available."""
    checks = {
        "redis": services.ledger.redis.ping(),
        "store": _store_answers(services),
        "worker": services.ledger.redis.workers.count() > 0,
    }
    return JSONResponse({"ready": all(checks.values()), "checks": checks}, 200 if all(checks.values()) else 503)


@router.get("/metrics", include_in_schema=False)
def metrics(services: GatewayServices) -> Response:
    """Export the gateway's Prometheus metrics, queue depths included."""
    QUEUE_DEPTH.clear()  # while Redis is unavailable, nothing is better than old figures
    for queue, depth in services.ledger.redis.turns.queue_depths((*READ_QUEUES, COURIER_QUEUE)).items():
        QUEUE_DEPTH.labels(queue).set(depth)
    REDIS_UP.set(services.ledger.redis.ping())
    WORKERS.set(services.ledger.redis.workers.count())
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _store_answers(services: Services) -> bool:
    try:
        services.ledger.store.exists("probe/readyz")
    except StoreError:
        return False
    return True
