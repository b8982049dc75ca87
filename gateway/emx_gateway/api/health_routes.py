"""/healthz, /readyz and /metrics."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from emx_gateway.api.dependencies import GatewayServices
from emx_shared.prometheus_metrics import QUEUE_DEPTH, REDIS_UP, WORKERS

router = APIRouter(tags=["operation"])


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> PlainTextResponse:
    """Tell that the gateway's process is alive. No thread is needed for it."""
    return PlainTextResponse("ok")


@router.get(
    "/readyz",
    responses={
        503: {"description": "Something that a report needs is unavailable", "content": {"application/json": {}}}
    },
)
async def readyz(services: GatewayServices) -> JSONResponse:
    """Tell whether Redis, the store, a worker with a loaded model and a courier are available."""
    checks = await services.probes.readiness()
    return JSONResponse({"ready": all(checks.values()), "checks": checks}, 200 if all(checks.values()) else 503)


@router.get("/metrics", include_in_schema=False)
async def metrics(services: GatewayServices) -> Response:
    """Export the gateway's Prometheus metrics, queue depths included."""
    redis_answers, workers, depths = await services.probes.redis_figures()
    QUEUE_DEPTH.clear()  # while Redis is unavailable, nothing is better than old figures
    for queue, depth in depths.items():
        QUEUE_DEPTH.labels(queue).set(depth)
    REDIS_UP.set(redis_answers)
    WORKERS.set(workers)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
