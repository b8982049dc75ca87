"""What every endpoint of the gateway works with."""

import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from emx_gateway.auth.authenticator import Caller, Limiter
from emx_gateway.http.problems import Problem
from emx_gateway.services.waiting import Waiting
from emx_shared.imaging import DecodedImage, decode
from emx_shared.ledger import Ledger, NewJob, submit
from emx_shared.ledger.records import Outcome
from emx_shared.ledger.records import Request as JobRequest
from emx_shared.messaging import READ_QUEUES
from emx_shared.prometheus_metrics import SUBMITTED
from emx_shared.settings import Settings
from emx_shared.webhooks import Targets, WebhookSecrets

T = TypeVar("T")
_DECODED_AT_A_TIME = os.cpu_count() or 1
_WAIT_TO_DECODE = 30.0
"""Seconds."""


@dataclass
class Service:
    ledger: Ledger
    waiting: Waiting
    limiter: Limiter
    settings: Settings
    secrets: WebhookSecrets = field(init=False)
    targets: Targets = field(init=False)
    _unqueued: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _decoding: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_DECODED_AT_A_TIME))

    def __post_init__(self) -> None:
        self.secrets = WebhookSecrets(self.ledger.store, self.settings)
        self.targets = Targets.of(self.settings)

    def validate(self, data: bytes) -> str:
        """The media type of an image that can be decoded. Raises BadImage, or Problem 503."""
        return self.drawn(data, lambda decoded: decoded.facts.media_type)

    def drawn(self, data: bytes, draw: Callable[[DecodedImage], T]) -> T:
        """Decode an image and make something of it: one for each core at a time, as a large one takes much memory.

        Raises BadImage, or Problem 503 where it would have to wait too long.
        """
        with self._place_to_decode():
            return draw(decode(data, self.settings.max_upload_bytes, self.settings.max_pixels))

    @contextlib.contextmanager
    def _place_to_decode(self) -> Iterator[None]:
        if not self._decoding.acquire(timeout=_WAIT_TO_DECODE):
            raise Problem(503, "busy", "Too many images are being decoded.", {"Retry-After": "5"})
        try:
            yield
        finally:
            self._decoding.release()

    def check_webhook(self, url: str | None, tenant: str) -> None:
        """Raises ForbiddenTarget, or Problem where no secret is set to sign with."""
        if url is None:
            return
        if not self.secrets.active(tenant):
            detail = "There is no secret to sign webhooks with: make one, POST /v1/webhooks/secrets/rotate."
            raise Problem(422, "no-webhook-secret", detail)
        self.targets.check(url)

    def submit(self, new: NewJob) -> JobRequest:
        """Accept a validated job. While Redis is away jobs are kept in the store alone, up to a bound.

        Raises Problem 429 or 503 where too many wait already, or the tenant's day is full, before it writes.
        """
        self._refuse_what_must_wait(new.tenant, new.priority)
        self.limiter.charge(new.tenant, 1)
        if self._unqueued >= self.settings.max_open_per_gateway:
            if not self.ledger.redis.ping():
                raise Problem(
                    503,
                    "queue-unavailable",
                    "The queue is away and too many jobs wait for it.",
                    {"Retry-After": "10"},
                )
            self._unqueued = 0
        request, queued = submit(self.ledger, new)
        with self._lock:
            self._unqueued = 0 if queued else self._unqueued + 1
        SUBMITTED.labels(request.priority).inc()
        return request

    def _refuse_what_must_wait(self, tenant: str, priority: str) -> None:
        chosen = self.settings
        waiting, messages = self.ledger.redis.turns.waiting(READ_QUEUES, tenant, priority)
        if waiting >= chosen.max_queued_per_tenant:
            detail = f"{chosen.max_queued_per_tenant} jobs of yours wait already: send more when some have ended."
            raise Problem(429, "too-many-queued", detail, {"Retry-After": "30"})
        if messages >= chosen.max_queued:
            raise Problem(503, "queue-full", "Too many jobs wait already.", {"Retry-After": "30"})

    def find(self, job: str, caller: Caller, kind: str = "job") -> tuple[JobRequest, Outcome | None]:
        """Raises Problem 404 for ids that are unknown, malformed, abandoned, erased or another tenant's.

        A batch is unknown as soon as its erasure has begun.
        """
        request = self.ledger.request(job) if _is_id(job) else None
        if (
            request is None
            or request.kind != kind
            or request.status != "committed"
            or request.tenant != caller.tenant
            or (kind == "batch" and self.ledger.erasing(job))
        ):
            raise Problem(404, f"no-such-{kind}", f"There is no {kind} with this id.")
        return request, self.ledger.outcome(job)


def _is_id(text: str) -> bool:
    """Our ids are lower-case UUIDs; anything else never reaches the store as a key."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


async def service(request: Request) -> Service:  # a plain function would cost a turn in the pool of threads
    found = request.app.state.service
    assert isinstance(found, Service)
    return found


Services = Annotated[Service, Depends(service)]
