"""The receiving end of a webhook (Standard Webhooks, standardwebhooks.com)."""

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from emx_shared.root_error import ExplainMyXrayError
from explainmyxray.client.resources import Job, Resource, read_json

TOLERANCE = 300
"""Seconds by which the sender's clock may differ. An older webhook may be a recording that is replayed."""


class BadWebhook(ExplainMyXrayError, ValueError):
    """The webhook wasn't signed with the secret, or not now. Answer 401 and ignore its content."""


class InvalidWebhookSecret(ExplainMyXrayError, ValueError):
    """The secret given to ``verify_webhook`` isn't a webhook secret (``whsec_`` and base64)."""


class WrongEventType(ExplainMyXrayError, ValueError):
    """The event isn't about a job, though a job was asked for. Look at its ``type`` first."""


class WebhookEvent(Resource):
    """The content of a verified webhook.

    Attributes:
        type: Type of the event, such as ``job.succeeded`` or ``batch.completed``.
        timestamp: When it happened.
        data: The job; or the batch's id, state, total and counts.
        id: Stays the same when an event is sent again, so that a receiver can skip duplicates.
    """

    type: str
    timestamp: datetime
    data: dict[str, Any]
    id: str = ""

    @property
    def job(self) -> Job:
        """The job of a job's event.

        Raises:
            WrongEventType: The event is about a batch, or is a ping.
        """
        try:
            return Job.model_validate(self.data, extra="ignore")
        except ValueError:
            raise WrongEventType(f"The event {self.type} has no job. Read its `data`.") from None


def verify_webhook(
    secret: str, headers: Mapping[str, str], body: bytes | str, tolerance: float = TOLERANCE
) -> WebhookEvent:
    """Verify a webhook's signature and age, and return its event.

    Args:
        secret: The tenant's signing secret (``whsec_…``).
        headers: The request's headers, with names in upper or lower case.
        body: The request's body as it was received, not parsed and written again.
        tolerance: Seconds by which the sender's clock may differ.

    Returns:
        The event.

    Raises:
        BadWebhook: It wasn't signed with this secret, is too old, or isn't an event.
        InvalidWebhookSecret: The secret is malformed.
    """
    content = body.encode() if isinstance(body, str) else body
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        id, at, signatures = (lower[f"webhook-{part}"] for part in ("id", "timestamp", "signature"))
        sent_at = int(at)
    except (KeyError, ValueError):
        raise BadWebhook(
            "A header webhook-id, webhook-timestamp or webhook-signature is missing or invalid."
        ) from None
    if abs(time.time() - sent_at) > tolerance:
        raise BadWebhook("The webhook is too old, or one of the two clocks is wrong.")
    expected = base64.b64encode(_sign(secret, f"{id}.{at}.".encode() + content))
    versions = (signature.partition(",") for signature in signatures.split())
    if not any(
        version == "v1" and hmac.compare_digest(expected, value.encode(errors="replace"))
        for version, _, value in versions
    ):
        raise BadWebhook("No signature was made with this secret.")
    try:
        return read_json(WebhookEvent, content).model_copy(update={"id": id})
    except ValueError:
        raise BadWebhook("The body isn't an event.") from None


def _sign(secret: str, content: bytes) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        raise InvalidWebhookSecret("A webhook secret is whsec_ followed by base64.") from None
    return hmac.new(key, content, hashlib.sha256).digest()
