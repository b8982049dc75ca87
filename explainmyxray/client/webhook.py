"""The receiving end of a webhook (Standard Webhooks, standardwebhooks.com)."""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from explainmyxray.client.resources import Job, Resource, read_json

TOLERANCE = 300
"""Seconds by which the sender's clock may differ; what is older may be somebody's recording."""


class BadWebhook(ValueError):
    """Not sent by who knows the secret, or not now: answer 401, and do nothing of what it says."""


class Event(Resource):
    """What a webhook tells.

    Attributes:
        type: such as ``job.succeeded`` or ``batch.succeeded``.
        id: the same when an event is sent again.
        data: the job, or the batch's id, state and counts.
    """

    type: str
    timestamp: datetime
    data: dict[str, Any]
    id: str = ""

    @property
    def job(self) -> Job:
        """Of events of jobs. Raises ValueError for others."""
        return Job.model_validate(self.data, extra="ignore")


def verify_webhook(
    secret: str, headers: Mapping[str, str], body: bytes | str, tolerance: float = TOLERANCE
) -> Event:
    """The event of a webhook that was signed with ``secret`` (whsec_…). Raises BadWebhook.

    Parameters:
        headers: those of the request; names in any case.
        body: as it was received, not parsed and written again.
        tolerance: seconds.
    """
    content = body.encode() if isinstance(body, str) else body
    given = {name.lower(): value for name, value in headers.items()}
    try:
        id, at, signatures = (given[f"webhook-{part}"] for part in ("id", "timestamp", "signature"))
        sent_at = int(at)
    except (KeyError, ValueError):
        raise BadWebhook("The headers webhook-id, webhook-timestamp and webhook-signature are needed.") from None
    if abs(time.time() - sent_at) > tolerance:
        raise BadWebhook("The webhook is too old, or one of the clocks is wrong.")
    wanted = base64.b64encode(_sign(secret, f"{id}.{at}.".encode() + content))
    versions = (signature.partition(",") for signature in signatures.split())
    if not any(
        version == "v1" and hmac.compare_digest(wanted, value.encode(errors="replace"))
        for version, _, value in versions
    ):
        raise BadWebhook("No signature is of this secret.")
    try:
        return read_json(Event, content).model_copy(update={"id": id})
    except ValueError:
        raise BadWebhook("The body is no event.") from None


def _sign(secret: str, content: bytes) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError("A webhook's secret is whsec_ and base64.") from None
    return hmac.new(key, content, hashlib.sha256).digest()
