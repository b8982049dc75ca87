"""One webhook on its way out: signed, and to no address that isn't allowed."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import httpcore
from standardwebhooks.webhooks import Webhook

from gateway.resources import job_resource
from shared.ledger import Answer, Ledger
from shared.ledger.records import Delivery
from shared.webhooks import ForbiddenTarget, Targets, WebhookSecrets

_USER_AGENT = "ExplainMyXray (Standard Webhooks)"


class _Guarded(httpcore.NetworkBackend):
    """Connects to the address that was checked, so that a name can't mean another one a moment later."""

    def __init__(self, targets: Targets) -> None:
        self._targets, self._inner = targets, httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        address = self._targets.resolve(host, port)[0]
        return self._inner.connect_tcp(address, port, timeout, local_address, socket_options)


class Sender:
    """Sends the events of a ledger's jobs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._targets = ledger, Targets.of(ledger.settings)
        self._secrets = WebhookSecrets(ledger.store, ledger.settings)

    def send(self, owed: Delivery) -> Answer:
        """POST one event. No redirect is followed, and nothing of the answer is read but its status."""
        return self.post(owed.url, owed.tenant, owed.message or owed.id, event_of(self._ledger, owed))

    def post(self, url: str, tenant: str, message: str, event: dict[str, Any]) -> Answer:
        """``message``: the id by which a receiver knows an event that it gets twice."""
        seconds = self._ledger.settings.webhook_timeout
        timeout = {"connect": seconds, "read": seconds, "write": seconds, "pool": seconds}
        body, headers = self.signed(tenant, message, event)
        try:
            self._targets.check(url)
            pool = httpcore.ConnectionPool(network_backend=_Guarded(self._targets))
            with (
                pool,
                pool.stream(
                    "POST", url, headers=list(headers.items()), content=body, extensions={"timeout": timeout}
                ) as got,
            ):
                return Answer(got.status)
        except ForbiddenTarget:
            return Answer(None, "forbidden target")
        except (*_FAULTS, OSError) as error:
            return Answer(None, type(error).__name__)

    def signed(self, tenant: str, message: str, event: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        """An event's body and headers. While two secrets are valid, there are two signatures."""
        body = json.dumps(event, separators=(",", ":"))
        now = int(time.time())
        at = datetime.fromtimestamp(now, UTC)
        signatures = [Webhook(secret).sign(message, at, body) for secret in self._secrets.active(tenant)]
        return body.encode(), {
            "content-type": "application/json",
            "user-agent": _USER_AGENT,
            "webhook-id": message,
            "webhook-timestamp": str(now),
            "webhook-signature": " ".join(signatures),
        }


_FAULTS = (
    httpcore.ConnectError,
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


def event_of(ledger: Ledger, owed: Delivery) -> dict[str, Any]:
    """What a delivery tells: its type, when it happened, and the job or the batch."""
    return event(ledger, owed.job, owed.event, owed.created_at)


def event(ledger: Ledger, job: str, kind: str, at: datetime) -> dict[str, Any]:
    request, outcome = ledger.request(job), ledger.outcome(job)
    data: dict[str, Any] = {"id": job}
    if request and outcome:
        if request.kind == "batch":
            data |= {"state": outcome.state, "counts": outcome.counts}
        else:
            data |= job_resource(ledger, request, outcome).model_dump(mode="json")
    return {"type": kind, "timestamp": at.isoformat(), "data": data}
