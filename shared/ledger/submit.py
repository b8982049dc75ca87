"""Submit: from a validated body to a job that can't be lost."""

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

from shared.ledger import keys
from shared.ledger.ledger import Ledger
from shared.ledger.records import OpenMarker, Priority, Request

_KEYED = uuid.UUID("5f4a2f0e-6a53-5d5c-8a37-3a3a54c8a3f1")


class Conflict(Exception):
    """The idempotency key was used before, for another request."""


class Abandoned(Exception):
    """The job was given up by the reconciler before it was committed; submitting again helps."""


@dataclass(frozen=True)
class NewJob:
    """A job to submit; ``data`` is the whole, validated image file.

    Attributes:
        metadata: the client's own, given back as it came.
        study, patient: the client's names for what belongs together, by which jobs are listed and erased.
        indication: clinical context for the model.
        expires_in: seconds after which the job is no longer worth doing; None for the setting's.
        idempotency_key: where the client sent one.
        id, batch, row, name: of the item of a batch.
    """

    data: bytes
    media_type: str
    tenant: str = "default"
    priority: Priority = "routine"
    webhook_url: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    study: str | None = None
    patient: str | None = None
    indication: str | None = None
    expires_in: float | None = None
    idempotency_key: str | None = None
    id: str | None = None
    batch: str | None = None
    row: int | None = None
    name: str | None = None

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Of the image's digest and the normalised fields, so that equal requests match however encoded."""
        fields = (
            self.sha256,
            self.tenant,
            self.priority,
            self.webhook_url,
            sorted(self.metadata.items()),
            self.study,
            self.patient,
            self.indication,
            self.expires_in,
        )
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()

    def request(self, ledger: Ledger, job: str) -> Request:
        now = ledger.store.now()
        return Request(
            id=job,
            fingerprint=self.fingerprint,
            tenant=self.tenant,
            submitted_at=now,
            expires_at=now + timedelta(seconds=self.expires_in or ledger.settings.job_ttl),
            priority=self.priority,
            webhook_url=self.webhook_url,
            metadata=self.metadata,
            study=self.study,
            patient=self.patient,
            indication=self.indication,
            input_sha256=self.sha256,
            media_type=self.media_type,
            batch=self.batch,
            row=self.row,
            name=self.name,
        )


def submit(ledger: Ledger, new: NewJob) -> tuple[Request, bool]:
    """Commit the job and enqueue it. Returns its request, and whether Redis took the message.

    A repeated key gets the first request back. Raises Conflict, Abandoned, StoreError.
    """
    job, replay = _identify(ledger, new)
    if replay:
        return replay, True
    request = new.request(ledger, job)
    ledger.store.put_if_absent(keys.open_marker(job), OpenMarker().dump())
    for marker in keys.groups(request):  # before the commit: whoever erases a patient must find every job
        ledger.store.put(marker, b"")
    ledger.store.put(keys.job_input(job, request.input_sha256), new.data)
    if not ledger.store.put_if_absent(keys.request(job), request.dump()):
        request = _winner(ledger, request)
    ledger.index.list_job(request.tenant, job, request.submitted_at)
    return request, ledger.enqueue(request)


def _identify(ledger: Ledger, new: NewJob) -> tuple[str, Request | None]:
    """The job's id and, if it was submitted before, its request. A key's abandoned ids are passed over."""
    if new.id:
        return new.id, ledger.request(new.id)
    if not new.idempotency_key:
        return str(uuid.uuid4()), None
    attempt = 0
    while True:
        job = str(uuid.uuid5(_KEYED, f"{new.tenant}\n{new.idempotency_key}\n{attempt}"))
        known = ledger.request(job)
        if known is None or known.status != "abandoned":
            if known and known.fingerprint != new.fingerprint:
                raise Conflict
            return job, known
        attempt += 1


def _winner(ledger: Ledger, mine: Request) -> Request:
    """Who wrote the request: I (a PUT that timed out after being written), a twin of mine, or another."""
    winner = ledger.request(mine.id)
    if winner is None or winner.status == "abandoned":
        raise Abandoned
    if winner.nonce != mine.nonce and winner.fingerprint != mine.fingerprint:
        raise Conflict
    return winner
