"""Send one webhook: signed, and to no address that isn't allowed."""

import json
import logging
import ssl
import time
import traceback
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpcore
from standardwebhooks.webhooks import Webhook

from emx_gateway.services.representations import event_data
from emx_shared.contracts.times import rfc3339
from emx_shared.ledger import EndpointAnswer, Ledger
from emx_shared.ledger.records import Delivery
from emx_shared.store import StoreError
from emx_shared.webhooks import ForbiddenTarget, WebhookSecrets, WebhookTargets

log = logging.getLogger("emx.sending")

_USER_AGENT = "ExplainMyXray (Standard Webhooks)"
_PIECE = 4096
"""Bytes written under one timeout: so few go out at once, as soon as there is room for any."""


class _Deadline:
    """When a send must be over. httpcore's own timeouts start anew with each byte that arrives."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def left(self, late: type[httpcore.TimeoutException]) -> float:
        """Return the seconds left; raise ``late`` if there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise late
        return left


class _Timed(httpcore.NetworkStream):
    """A connection that ends at the deadline, however slow the other side is."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left(httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for at in range(0, len(buffer), _PIECE):
            self._inner.write(buffer[at : at + _PIECE], self._deadline.left(httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(httpcore.ConnectTimeout)
        return _Timed(self._inner.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def close(self) -> None:
        self._inner.close()


class _Guarded(httpcore.NetworkBackend):
    """Connects to the address that was checked, so that a name can't mean another address a moment later."""

    def __init__(self, targets: WebhookTargets, deadline: _Deadline) -> None:
        self._targets, self._deadline, self._inner = targets, deadline, httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        address = self._targets.resolve(host, port)[0]
        left = self._deadline.left(httpcore.ConnectTimeout)
        return _Timed(self._inner.connect_tcp(address, port, left, local_address, socket_options), self._deadline)


class Sender:
    """Sends the events of a ledger's jobs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._targets = ledger, WebhookTargets.of(ledger.settings)
        self._secrets = WebhookSecrets(ledger.store, ledger.settings)

    def send(self, owed: Delivery) -> EndpointAnswer:
        """Send one event. No redirect is followed; of the answer, status and Retry-After are read."""
        event = webhook_event(self._ledger, owed.job, owed.event, owed.created_at)
        return self.post(owed.url, owed.tenant, owed.message or owed.id, event)

    def post(self, url: str, tenant: str, message: str, event: dict[str, Any]) -> EndpointAnswer:
        """Post an event; ``message`` is the id by which a receiver recognises an event that it gets twice.

        Takes ``webhook_timeout`` seconds at most, from looking up the host to the status. Raises StoreError.
        """
        deadline = _Deadline(self._ledger.settings.webhook_timeout)
        try:
            body, headers = self.signed(tenant, message, event)
            self._targets.check(url)
            pool = httpcore.ConnectionPool(network_backend=_Guarded(self._targets, deadline))
            with pool, pool.stream("POST", url, headers=list(headers.items()), content=body) as got:
                return EndpointAnswer(got.status, retry_after=_retry_after(got))
        except StoreError:
            raise
        except ForbiddenTarget:
            return EndpointAnswer(None, "forbidden target")
        except Exception as error:  # whatever it is, the outbox must be able to give up
            if not isinstance(error, (*_FAULTS, OSError)):
                stack = "".join(traceback.format_tb(error.__traceback__))  # without what it says: it may quote
                log.error("sending %s stumbled: %s\n%s", message, type(error).__name__, stack)
            return EndpointAnswer(None, type(error).__name__)

    def signed(self, tenant: str, message: str, event: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        """Return an event's body and headers, with one signature for each valid secret."""
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


def _retry_after(answer: httpcore.Response) -> float | None:
    """Return the seconds of Retry-After (RFC 9110, 10.2.3), which is a number of them or a date."""
    given = next((value for name, value in answer.headers if name.lower() == b"retry-after"), b"").decode(
        "latin-1"
    )
    if given.isascii() and given.isdigit():
        return float(given[:9])
    try:
        return max(parsedate_to_datetime(given).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return None


def webhook_event(ledger: Ledger, id: str, type: str, at: datetime) -> dict[str, Any]:
    """Return the body of an event: its type, when it happened, and the job or the batch."""
    return {"type": type, "timestamp": rfc3339(at), "data": event_data(ledger, id)}
