"""The gateway: ``uvicorn --factory emx_gateway.app:create_app``."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi_swagger import patch_fastapi
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from typing_extensions import override

from emx_gateway.api import (
    batch_routes,
    feedback_routes,
    health_routes,
    job_routes,
    openapi,
    report_routes,
    upload_routes,
    webhook_routes,
)
from emx_gateway.api.dependencies import known_query
from emx_gateway.auth.audit import Auditor, note_refusal
from emx_gateway.auth.authenticator import Authenticator
from emx_gateway.auth.local_only import LocalOnlyGuard, is_loopback
from emx_gateway.auth.rate_limits import RateLimits
from emx_gateway.http import problems
from emx_gateway.http.answer_headers import AnswerHeaders
from emx_gateway.http.body_limit import BodyLimit
from emx_gateway.http.stopping import Stopping
from emx_gateway.services.job_updates import JobUpdates
from emx_gateway.services.services import Services
from emx_shared.api_keys import KeyRing
from emx_shared.audit_log import AuditLog
from emx_shared.contracts.report import DISCLAIMER
from emx_shared.demo_files import DEMO_IMAGE
from emx_shared.imaging import MEDIA_TYPES
from emx_shared.ledger.opening import open_ledger
from emx_shared.settings import Settings, settings
from emx_shared.version import __version__

ROUTES = (
    job_routes,
    report_routes,
    feedback_routes,
    upload_routes,
    batch_routes,
    webhook_routes,
    health_routes,
)
WEB = Path(__file__).parent / "web"
_CONTENT_POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'wasm-unsafe-eval'",  # decoders of compressed DICOM files
        "style-src 'self'",
        "style-src-attr 'unsafe-inline'",  # Cornerstone3D's labels
        "img-src 'self' blob:",
        *("object-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"),
    ]
)
_UNCHANGING = "public, max-age=31536000, immutable"
_DESCRIPTION = f"Send a chest X-ray; get a structured report with a box around every finding.\n\n**{DISCLAIMER}**"
_MULTIPART_OVERHEAD = 2**20
_NOT_COMPRESSED = (*DEFAULT_EXCLUDED_CONTENT_TYPES, *MEDIA_TYPES.values(), "application/pdf")
_CORS_TAKEN = [
    *("Authorization", "Content-Type", "Idempotency-Key", "Prefer", "Last-Event-ID"),
    *("If-None-Match", "X-Request-ID", "traceparent"),
]
_CORS_SHOWN = [
    *("Location", "Retry-After", "RateLimit", "RateLimit-Policy", "Preference-Applied"),
    *("ETag", "Link", "X-Request-ID"),
]
_IMAGES_OF_A_BATCH = 4
"""How many of the largest images fit into one request; of smaller ones more."""


class UnsafeBind(Exception):
    """Without API keys the gateway listens on loopback only; the text says what to do."""


def create_app(chosen: Settings | None = None) -> FastAPI:
    """Make the gateway's application.

    Args:
        chosen: settings; None for those of the environment.

    Raises:
        UnsafeBind: it would listen beyond loopback without API keys.
        UnsuitableStore, StoreError: the store can't be used, or is unavailable.
    """
    chosen = chosen or settings()
    ledger = open_ledger(chosen, "gateway")
    ring = KeyRing(ledger.store)
    _refuse_open_doors(chosen, ring)
    stopping = Stopping()
    updates = JobUpdates(chosen.redis, ledger.outcome, stopping)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        listening = asyncio.create_task(updates.listen())
        yield
        listening.cancel()
        app.state.services.close()

    app = FastAPI(
        title="ExplainMyXray",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        generate_unique_id_function=lambda route: route.name,
        root_path=chosen.path_prefix,
    )
    app.state.rate_limits = RateLimits(chosen, ledger.redis.connection)
    app.state.stopping = stopping
    app.state.services = Services(ledger, updates, app.state.rate_limits, chosen)
    app.state.authenticator = Authenticator(ring, may_open=is_loopback(chosen.host))
    app.state.local_only = LocalOnlyGuard(chosen)
    app.state.auditor = Auditor(AuditLog(chosen))
    patch_fastapi(app, redirect_from_root_to_docs=False)  # /docs without a content delivery network
    problems.install(app, note_refusal)
    for routes in ROUTES:
        probes = routes is health_routes  # a load balancer may put anything into its query
        app.include_router(routes.router, dependencies=[] if probes else [Depends(known_query)])
    app.state.endpoints = [*app.routes, *(route for routes in ROUTES for route in routes.router.routes)]
    openapi.install(app)

    @app.get("/", include_in_schema=False)
    def workstation() -> FileResponse:
        return FileResponse(WEB / "index.html", headers={"Content-Security-Policy": _CONTENT_POLICY})

    @app.get("/demo.png", include_in_schema=False)
    def demo_image() -> FileResponse:
        return FileResponse(DEMO_IMAGE)

    app.mount("/assets", _Assets(directory=WEB / "assets"), name="assets")
    one, several = (n * chosen.max_upload_bytes + _MULTIPART_OVERHEAD for n in (1, _IMAGES_OF_A_BATCH))
    app.add_middleware(
        BodyLimit,
        limit=one,
        larger={batch_routes.router.prefix: several},
        seconds=chosen.receive_timeout,
        stopping=stopping,
    )
    if chosen.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=chosen.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=_CORS_TAKEN,
            expose_headers=_CORS_SHOWN,
        )
    app.add_middleware(GZipMiddleware, compresslevel=5, exclude_content_types=_NOT_COMPRESSED)
    app.add_middleware(AnswerHeaders)
    return app


class _Assets(StaticFiles):
    """Files of the workstation, whose names say their content: a browser never asks for one again."""

    @override
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = _UNCHANGING
        return response


def _refuse_open_doors(chosen: Settings, ring: KeyRing) -> None:
    if not is_loopback(chosen.host) and not chosen.allow_keyless_bind and not ring.any():
        raise UnsafeBind(
            f"EMX_HOST={chosen.host} would let anyone on the network in, as there are no API keys. Create one: "
            "`emx keys create`. EMX_ALLOW_KEYLESS_BIND=true is for containers whose port is published on loopback "
            "only."
        )
