"""/v1/uploads: an image on its way straight to the store, before there is a job."""

import hashlib
import hmac
import secrets
import time
import uuid
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from emx_gateway.auth.authenticator import Caller, Submitter
from emx_gateway.http.bodies import read_image
from emx_gateway.http.problems import Problem, documented
from emx_gateway.services.service import Service, Services
from emx_shared.ledger import object_keys
from emx_shared.store import NotFound, Store

router = APIRouter(tags=["uploads"])
VALID_FOR = 3600
"""Seconds in which the image must arrive."""

_SECRET = "secrets/uploads"


class Upload(BaseModel):
    """Where to put an image: one ``PUT`` with its bytes as the body."""

    id: str = Field(description="To be named in the submission")
    url: str = Field(description="Needs no API key")
    method: str = "PUT"
    expires_at: datetime


@router.post("/v1/uploads", status_code=201, responses=documented(401, 403, 429, 503))
def create_upload(service: Services, caller: Submitter, request: Request) -> Upload:
    """Make room for an image that is too large, or too far away, to pass through this server twice."""
    id = str(uuid.uuid4())
    expires = int(time.time()) + VALID_FOR
    key = object_keys.upload(caller.tenant, id)
    url = service.ledger.store.presign_put(key, VALID_FOR)
    if url is None:
        signature = _signature(service.ledger.store, caller.tenant, id, expires)
        own = request.url_for("receive_upload", id=id)
        url = str(own.include_query_params(tenant=caller.tenant, expires=expires, signature=signature))
    return Upload(id=id, url=url, expires_at=datetime.fromtimestamp(expires, UTC))


@router.put("/v1/uploads/{id}", status_code=204, responses=documented(403, 413, 422, 503))
async def receive_upload(
    service: Services, request: Request, id: str, tenant: str, expires: int, signature: str
) -> Response:
    """Where the store has no address of its own, images are put here. The URL is that of ``POST /v1/uploads``."""
    wanted = await run_in_threadpool(_signature, service.ledger.store, tenant, id, expires)
    if not hmac.compare_digest(wanted.encode(), signature.encode()) or expires < time.time():
        raise Problem(403, "bad-upload-url", "This upload URL has expired, or was changed: ask for another.")
    data = await read_image(request, service.settings.max_upload_bytes)
    await run_in_threadpool(service.ledger.store.put, object_keys.upload(tenant, id), data)
    return Response(status_code=204)


def take_upload(service: Service, caller: Caller, id: str) -> bytes:
    """The bytes of an upload, which stays until a job was made of it. Raises Problem."""
    key = object_keys.upload(caller.tenant, id)
    try:
        uuid.UUID(id)
        size = service.ledger.store.size(key)
        if size > service.settings.max_upload_bytes:
            most = service.settings.max_upload_bytes
            raise Problem(413, "image-too-large", f"The upload has {size} bytes; at most {most} are accepted.")
        return service.ledger.store.get(key)
    except (NotFound, ValueError):
        raise Problem(422, "no-such-upload", "There is no upload with this id, or it hasn't arrived.") from None


def _signature(store: Store, tenant: str, id: str, expires: int) -> str:
    return hmac.new(_secret(store), f"{tenant}\n{id}\n{expires}".encode(), hashlib.sha256).hexdigest()


def _secret(store: Store) -> bytes:
    """Shared by all gateways of a store."""
    try:
        return store.get(_SECRET)
    except NotFound:
        store.put_if_absent(_SECRET, secrets.token_bytes(32))
        return store.get(_SECRET)
