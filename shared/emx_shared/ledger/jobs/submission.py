"""Submit: from a validated body to a job that can't be lost."""

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

from emx_shared.ledger import object_keys
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import OpenMarker, Priority, Request

_KEYED = uuid.UUID("5f4a2f0e-6a53-5d5c-8a37-3a3a54c8a3f1")


class Conflict(Exception):
    """The idempotency key was used before, for another request."""


class Abandoned(Exception):
    """The job was given up by the reconciler before it was committed; submitting again helps."""


class WasErased(Exception):
    """The job of this idempotency key was erased since, or is being erased."""


@dataclass(frozen=True)
class NewJob:
    """A job to submit; ``data`` is the whole, validated image file.

    Attributes:
        metadata: the client's own, given back as it came.
        study, patient: the client's names for what belongs together, by which jobs are listed and erased.
        indication: clinical context for the model.
        expires_in: seconds after which the job is no longer worth doing; None for the setting's.
        idempotency_key: where the client sent one.
        upload: the upload that the image came by. It is gone when the submission is repeated, and so names the
            image in its stead.
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
    upload: str | None = None
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
            f"upload:{self.upload}" if self.upload else self.sha256,
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


def submitted_before(ledger: Ledger, new: NewJob) -> Request | None:
    """The request that a repeated idempotency key stands for. Raises Conflict, WasErased, StoreError."""
    return _identify(ledger, new)[1]


def submit(ledger: Ledger, new: NewJob) -> tuple[Request, bool]:
    """Commit the job and enqueue it. Returns its request, and whether Redis took the message.

    A repeated key gets the first request back. Raises Conflict, Abandoned, WasErased, StoreError.
    """
    job, replay = _identify(ledger, new)
    if replay:
        return replay, True
    request = commit(ledger, new.request(ledger, job), new.data)
    return request, ledger.enqueue(request)


def commit(ledger: Ledger, mine: Request, data: bytes | None) -> Request:
    """Write a job with its image, if it has one. Returns the request that counts: mine, or that of a twin.

    Raises Conflict, Abandoned, WasErased, StoreError.
    """
    store, input = ledger.store, object_keys.job_input(mine.id, mine.input_sha256)
    store.put_if_absent(object_keys.open_marker(mine.id), OpenMarker(batch=mine.batch).dump())
    for marker in object_keys.groups(mine):  # before the commit: whoever erases a patient must find every job
        store.put(marker, b"")
    if data is not None:
        store.put(input, data)
    request = mine
    if not store.put_if_absent(object_keys.request(mine.id), mine.dump()):
        try:
            request = winner(ledger, mine)
        except (Abandoned, WasErased):
            for written in (*object_keys.groups(mine), input):
                store.delete(written)
            raise
    ledger.redis.listings.add_job(request.tenant, request.id, request.submitted_at)
    return request


def identify(
    ledger: Ledger, space: uuid.UUID, tenant: str, key: str, fingerprint: str
) -> tuple[str, Request | None]:
    """The id that a key stands for and, if it was submitted before, its request. Abandoned ids are passed over.

    Raises Conflict, WasErased.
    """
    attempt = 0
    while True:
        id = str(uuid.uuid5(space, f"{tenant}\n{key}\n{attempt}"))
        known = ledger.request(id)
        if known is None:
            return id, None
        if known.status == "erased" or ledger.erasing(id):
            raise WasErased
        if known.status == "committed":
            if known.fingerprint != fingerprint:
                raise Conflict
            return id, known
        attempt += 1


def winner(ledger: Ledger, mine: Request) -> Request:
    """Who wrote the request: I (a PUT that timed out after being written), a twin of mine, or another.

    Raises Conflict, Abandoned, WasErased.
    """
    found = ledger.request(mine.id)
    if found is None or found.status == "abandoned":
        raise Abandoned
    if found.status == "erased":
        raise WasErased
    if found.nonce != mine.nonce and found.fingerprint != mine.fingerprint:
        raise Conflict
    return found


def _identify(ledger: Ledger, new: NewJob) -> tuple[str, Request | None]:
    if new.id:
        return new.id, None
    if not new.idempotency_key:
        return str(uuid.uuid4()), None
    return identify(ledger, _KEYED, new.tenant, new.idempotency_key, new.fingerprint)
