"""Submit: from a validated image to a job that can't be lost."""

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Generic, TypeVar

from emx_shared.ledger import object_keys
from emx_shared.ledger.ledger import Ledger
from emx_shared.ledger.records import BatchPlace, BatchRecord, JobRecord, OpenMarker, Priority, Tombstone
from emx_shared.ledger.submission_errors import IdempotencyConflict, SubmissionAbandoned, SubmissionErased

_KEYED_JOBS = uuid.UUID("5f4a2f0e-6a53-5d5c-8a37-3a3a54c8a3f1")
R = TypeVar("R", JobRecord, BatchRecord)


@dataclass(frozen=True)
class NewJob:
    """A job to submit.

    Attributes:
        data: the whole, validated image file.
        metadata: the client's own, given back as it came.
        study, patient: the client's names for what belongs together, by which jobs are listed and erased.
        indication: clinical context for the model.
        expires_in: seconds after which the report is no longer wanted; None for the setting's.
        idempotency_key: the client's, where it sent one.
        upload: the upload that has the image. It is gone when the submission is repeated, and so names the image
            in its stead.
        request_id: under which the logs have the request.
        id, item: of the item of a batch.
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
    request_id: str | None = None
    id: str | None = None
    item: BatchPlace | None = None

    @cached_property
    def sha256(self) -> str:
        """The image's digest, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Digest of the image's digest and the normalised fields, so that equal requests match however encoded."""
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

    def record(self, ledger: Ledger, id: str) -> JobRecord:
        """Return the record to commit, submitted now by the store's clock."""
        now = ledger.now()
        return JobRecord(
            id=id,
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
            item=self.item,
            request_id=self.request_id,
        )


@dataclass(frozen=True)
class Claim(Generic[R]):
    """The id that a submission will have.

    Attributes:
        replayed: what was committed under this id before, by the same submission; there is nothing left to do.
    """

    id: str
    replayed: R | None = None


def claim_job(ledger: Ledger, new: NewJob) -> Claim[JobRecord]:
    """Find the id of a new job, or the job that its idempotency key stands for already.

    Raises:
        IdempotencyConflict: the key was used for another request.
        SubmissionErased: the key's job was erased.
        StoreError: the store is unavailable.
    """
    if new.id:
        return Claim(new.id)
    if not new.idempotency_key:
        return Claim(str(uuid.uuid4()))
    return claim_key(ledger, JobRecord, _KEYED_JOBS, new.tenant, new.idempotency_key, new.fingerprint)


def submit(ledger: Ledger, new: NewJob, claim: Claim[JobRecord] | None = None) -> tuple[JobRecord, bool]:
    """Commit a job and enqueue it. A repeated idempotency key gives the first job back.

    Args:
        ledger: where to.
        new: the job.
        claim: what ``claim_job`` found, where it was asked before.

    Returns:
        The job's record, and whether Redis took the message.

    Raises:
        IdempotencyConflict, SubmissionAbandoned, SubmissionErased: see ``ledger/submission_errors.py``.
        StoreError: the store is unavailable; nothing was accepted.
    """
    claim = claim or claim_job(ledger, new)
    if claim.replayed:
        return claim.replayed, True
    job = commit_job(ledger, new.record(ledger, claim.id), new.data)
    return job, ledger.enqueue(job)


def commit_job(ledger: Ledger, mine: JobRecord, data: bytes | None) -> JobRecord:
    """Write a job with its image, if it has one.

    Returns:
        The record that counts: mine, or that of the same submission sent twice.

    Raises:
        IdempotencyConflict, SubmissionAbandoned, SubmissionErased, StoreError: as ``submit`` does.
    """
    store, input = ledger.store, object_keys.job_input(mine.id, mine.input_sha256)
    marker = OpenMarker(batch=mine.item.batch if mine.item else None)
    ledger.write_once(object_keys.open_marker(mine.id), marker.dump())
    for group in object_keys.groups(mine):  # before the commit: whoever erases a patient must find every job
        store.put(group, b"")
    if data is not None:
        store.put(input, data)
    job = mine
    if not ledger.write_once(object_keys.record(mine.id), mine.dump()):
        try:
            job = committed(ledger, mine)
        except (SubmissionAbandoned, SubmissionErased):
            for written in (*object_keys.groups(mine), input):
                store.delete(written)
            raise
        except IdempotencyConflict:  # its image goes when the job ends
            winner = ledger.job(mine.id)
            for group in set(object_keys.groups(mine)) - set(object_keys.groups(winner) if winner else ()):
                store.delete(group)
            raise
    return job


def claim_key(
    ledger: Ledger, kind: type[R], space: uuid.UUID, tenant: str, key: str, fingerprint: str
) -> Claim[R]:
    """Find the id that an idempotency key stands for, passing over abandoned ones.

    Args:
        ledger: where to look.
        kind: what the key is to stand for.
        space: namespace of the ids, so that the keys of jobs and of batches keep apart.
        tenant: whose key it is.
        key: the idempotency key.
        fingerprint: digest of the whole submission.

    Raises:
        IdempotencyConflict: the key was used for another request.
        SubmissionErased: what it stood for was erased.
    """
    attempt = 0
    while True:
        id = str(uuid.uuid5(space, f"{tenant}\n{key}\n{attempt}"))
        known = ledger.record(id)
        if known is None:
            return Claim(id)
        if isinstance(known, Tombstone) and known.why == "abandoned":
            attempt += 1
        elif isinstance(known, Tombstone) or ledger.erasing(id):
            raise SubmissionErased
        elif not isinstance(known, kind) or known.fingerprint != fingerprint:
            raise IdempotencyConflict
        else:
            return Claim(id, known)


def committed(ledger: Ledger, mine: R) -> R:
    """Return the record that won over mine: my own (a PUT that timed out after being written), or my twin's.

    Raises:
        IdempotencyConflict: another submission won.
        SubmissionAbandoned: the reconciler did.
        SubmissionErased: it was erased meanwhile.
    """
    found = ledger.record(mine.id)
    if found is None or (isinstance(found, Tombstone) and found.why == "abandoned"):
        raise SubmissionAbandoned
    if isinstance(found, Tombstone):
        raise SubmissionErased
    if not isinstance(found, type(mine)):
        raise IdempotencyConflict
    if found.nonce != mine.nonce and found.fingerprint != mine.fingerprint:
        raise IdempotencyConflict
    return found
