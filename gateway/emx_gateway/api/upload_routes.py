"""/v1/uploads: upload an image straight to the store before there is a job."""

import time
import uuid
from datetime import UTC, datetime
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from emx_gateway.api.dependencies import Audit, GatewayServices, Submitter
from emx_gateway.api.submission_bodies import IdempotencyKey
from emx_gateway.http.bodies import read_image
from emx_gateway.http.problems import Problem, documented
from emx_gateway.schemas import Upload
from emx_gateway.services.upload_urls import is_valid, sign_upload
from emx_shared.ledger import object_keys, uploads
from emx_shared.settings import Settings

router = APIRouter(tags=["uploads"])
VALID_FOR = 3600
"""Seconds in which the image must arrive."""

_KEYED_UPLOADS = uuid.UUID("3e5d1d0e-95a4-5b7e-8f0b-1c6a6d7c2f58")


@router.post("/v1/uploads", status_code=201, responses=documented(401, 403, 422, 429, 503))
def create_upload(
    services: GatewayServices,
    caller: Submitter,
    audit: Audit,
    request: Request,
    idempotency_key: IdempotencyKey = None,
) -> Upload:
    """Get a URL for an image that is too large, or too far away, to pass through this server twice.

    The same ``Idempotency-Key`` gives the same upload with a fresh URL, and tells whether its image has arrived,
    so that uploading can be resumed.
    """
    keyed = uuid.uuid5(_KEYED_UPLOADS, f"{caller.tenant}\n{idempotency_key}") if idempotency_key else None
    id = str(keyed or uuid.uuid4())
    audit.note(caller, "upload.create", id)
    services.rate_limits.charge(caller.tenant, 1, "uploads")
    if keyed:
        uploads.reopen(services.ledger, caller.tenant, id)
    expires = int(time.time()) + VALID_FOR
    store = services.ledger.store
    key = object_keys.upload(caller.tenant, id)
    received = idempotency_key is not None and store.exists(key)
    url = store.presign_put(key, VALID_FOR)
    if url is None:
        signature = sign_upload(store, caller.tenant, id, expires)
        signed = urlencode({"tenant": caller.tenant, "expires": expires, "signature": signature})
        url = f"{_own_address(services.settings, request)}/v1/uploads/{id}?{signed}"
    return Upload(
        id=id,
        url=url,
        expires_at=datetime.fromtimestamp(expires, UTC),
        received=received,
        max_bytes=services.settings.max_upload_bytes,
    )


def _own_address(settings: Settings, request: Request) -> str:
    """Return where clients reach this gateway: behind TLS never http, even if the proxy isn't a trusted one."""
    if settings.public_url:
        return str(settings.public_url).rstrip("/")
    own = request.base_url
    if request.headers.get("x-forwarded-proto") == "https":
        own = own.replace(scheme="https")
    return str(own).rstrip("/")


@router.put("/v1/uploads/{id}", status_code=204, responses=documented(403, 409, 413, 422, 429, 503))
async def receive_upload(
    services: GatewayServices, request: Request, id: str, tenant: str, expires: int, signature: str
) -> Response:
    """Receive an image where the store has no address of its own. ``POST /v1/uploads`` gives the URL."""
    store = services.ledger.store
    if not await run_in_threadpool(is_valid, store, tenant, id, expires, signature):
        detail = "This upload URL has expired, or was changed. Get another: POST /v1/uploads."
        raise Problem(403, "bad-upload-url", detail)
    request.state.headers = await run_in_threadpool(services.rate_limits.admit, tenant, "submit")
    most = services.settings.max_upload_bytes
    async with services.bodies.room(request, tenant, most):
        data = await read_image(request, most)
        if not await run_in_threadpool(uploads.receive, services.ledger, tenant, id, data):
            detail = "A job has been made of this upload. Get another URL: POST /v1/uploads."
            raise Problem(409, "upload-used", detail)
    return Response(status_code=204)
