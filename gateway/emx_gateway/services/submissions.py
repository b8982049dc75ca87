"""Whether a submission is accepted: replays, webhooks, quotas, crowding and images, decided in this one place."""

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool

from emx_gateway.auth.authenticator import Caller
from emx_gateway.auth.rate_limits import RateLimits
from emx_gateway.http.problems import Problem
from emx_gateway.schemas import BatchOptions, JobOptions
from emx_gateway.services.image_decoding import ImageDecoding
from emx_gateway.services.manifest_upload import ManifestUpload
from emx_shared.imaging import BadImage
from emx_shared.ledger import (
    Claim,
    Ledger,
    NewBatch,
    NewJob,
    claim_batch,
    claim_job,
    failed_rows,
    is_permanent_failure,
    object_keys,
    retry_batch,
    submit,
    submit_batch,
    uploads,
)
from emx_shared.ledger.records import BatchRecord, JobRecord, Row
from emx_shared.messaging import READ_QUEUES
from emx_shared.prometheus_metrics import SUBMITTED
from emx_shared.store import NoSuchObject
from emx_shared.webhooks import WebhookSecrets, WebhookTargets

_LONGEST_NAME = 255


Announce = Callable[[str], None]


@dataclass(frozen=True)
class NamedFile:
    """A file of a form.

    Attributes:
        name: the sender's name for it; it may name a patient, and is kept like the other fields of a submission.
    """

    name: str | None
    file: BinaryIO

    @property
    def row_name(self) -> str | None:
        """The row's name, without control characters: of a long name the end, which tells files apart."""
        shown = "".join(letter if letter.isprintable() else "_" for letter in self.name or "")
        return shown[-_LONGEST_NAME:] or None


@dataclass(frozen=True)
class JobSubmission:
    """A submission as it was received.

    Attributes:
        data: the image's bytes, or None where ``upload`` names the upload that has them.
    """

    options: JobOptions
    data: bytes | None = None
    upload: str | None = None


class Submissions:
    """Accepts jobs and batches.

    Every method first looks for what an idempotency key stands for already: a repeated submission is charged for
    nothing and refused for nothing. ``announce`` is given the id of the job or batch before anything is stored,
    and may raise to prevent that. All may raise Problem, BadImage, ForbiddenTarget, StoreError and the errors of
    ``ledger/submission_errors.py``; nothing was accepted then.
    """

    def __init__(self, ledger: Ledger, rate_limits: RateLimits, decoding: ImageDecoding) -> None:
        self._ledger, self._settings = ledger, ledger.settings
        self._rate_limits, self._decoding = rate_limits, decoding
        self._secrets = WebhookSecrets(ledger.store, ledger.settings)
        self._targets = WebhookTargets.of(ledger.settings)
        self._unqueued = 0
        self._lock = threading.Lock()

    async def submit_job(
        self, caller: Caller, sent: JobSubmission, idempotency_key: str | None, announce: Announce
    ) -> JobRecord:
        """Accept one image."""
        new = NewJob(
            data=sent.data or b"",
            media_type="",
            tenant=caller.tenant,
            upload=sent.upload,
            idempotency_key=idempotency_key,
            request_id=caller.request_id,
            **sent.options.model_dump(include=set(JobOptions.model_fields)),
        )
        claim = await run_in_threadpool(claim_job, self._ledger, new)
        if claim.replayed:
            announce(claim.id)
            return claim.replayed
        if sent.options.webhook_url:
            await run_in_threadpool(self.check_webhook, sent.options.webhook_url, caller.tenant)
        if sent.upload:
            new = replace(new, data=await run_in_threadpool(self._uploaded, caller, sent.upload))
        new = replace(new, media_type=await self._decoding.media_type(new.data, caller.tenant))
        return await run_in_threadpool(self._submit, new, claim, announce)

    def _submit(self, new: NewJob, claim: Claim[JobRecord], announce: Announce) -> JobRecord:
        self._refuse_crowding(new.tenant, new.priority)
        self._rate_limits.charge(new.tenant, 1)
        self._refuse_unqueued()
        announce(claim.id)
        job, queued = submit(self._ledger, new, claim)
        self._count_unqueued(queued)
        SUBMITTED.labels(job.priority).inc()
        if new.upload:
            uploads.use_up(self._ledger, new.tenant, new.upload)
        return job

    def submit_manifest(
        self,
        caller: Caller,
        options: BatchOptions,
        received: ManifestUpload,
        idempotency_key: str | None,
        announce: Announce,
    ) -> BatchRecord:
        """Accept the batch of a manifest."""
        new = self._new_batch(caller, options, idempotency_key, received.sha256)
        claim = claim_batch(self._ledger, new)
        if claim.replayed:
            announce(claim.id)
            return claim.replayed
        self._check_webhooks(options, caller.tenant)
        self._rate_limits.charge(caller.tenant, received.check())
        announce(claim.id)
        return submit_batch(self._ledger, new, received.rows(), claim=claim)

    async def submit_files(
        self,
        caller: Caller,
        options: BatchOptions,
        named: list[NamedFile],
        idempotency_key: str | None,
        announce: Announce,
    ) -> BatchRecord:
        """Accept the batch of images that came along. Raises BadImage that tells which of them it is."""
        files = [each.file for each in named]
        rows = await run_in_threadpool(_rows_of, named)
        digest = hashlib.sha256(json.dumps([(row.image, row.name) for row in rows]).encode()).hexdigest()
        new = self._new_batch(caller, options, idempotency_key, digest)
        claim = await run_in_threadpool(claim_batch, self._ledger, new)
        if claim.replayed:
            announce(claim.id)
            return claim.replayed
        await run_in_threadpool(self._check_webhooks, options, caller.tenant)
        for number, file in enumerate(files, start=1):
            await self._check_file(number, await run_in_threadpool(_content, file), caller.tenant)
        await run_in_threadpool(self._rate_limits.charge, caller.tenant, len(rows))
        announce(claim.id)
        return await run_in_threadpool(submit_batch, self._ledger, new, rows, _contents(files), claim)

    def retry(
        self,
        caller: Caller,
        batch: BatchRecord,
        include_permanent: bool,
        idempotency_key: str | None,
        announce: Announce,
    ) -> BatchRecord:
        """Accept a new batch of another's items that have failed so far, permanently or not."""
        new = NewBatch(
            tenant=caller.tenant,
            priority=batch.priority,
            webhook_url=batch.webhook_url,
            item_webhook_url=batch.item_webhook_url,
            idempotency_key=idempotency_key,
            fingerprint=f"retry of {batch.id}" + (", permanent failures too" if include_permanent else ""),
            retry_of=batch.id,
            request_id=caller.request_id,
        )
        claim = claim_batch(self._ledger, new)
        if claim.replayed:
            announce(claim.id)
            return claim.replayed
        failed = failed_rows(self._ledger, batch)
        if not failed:
            raise Problem(409, "nothing-failed", "No item of this batch has failed.")
        if not include_permanent:
            failed = {row for row in failed if not is_permanent_failure(self._ledger, batch, row)}
        if not failed:
            detail = (
                "Every failed item would fail again, as its image is at fault. Correct the images and submit them "
                "as a new batch, or retry all the same: include_permanent=true."
            )
            raise Problem(409, "only-permanent-failures", detail)
        self._rate_limits.charge(caller.tenant, len(failed))
        announce(claim.id)
        return retry_batch(self._ledger, batch, failed, new, claim)

    def check_webhook(self, url: str | None, tenant: str) -> None:
        """Raise ForbiddenTarget for a URL that may not be called, Problem if there is no secret to sign with."""
        if url is None:
            return
        if not self._secrets.active(tenant):
            detail = "There is no secret to sign webhooks with. Create one: POST /v1/webhooks/secrets/rotate."
            raise Problem(422, "no-webhook-secret", detail)
        self._targets.check(url)

    def _check_webhooks(self, options: BatchOptions, tenant: str) -> None:
        for url in (options.webhook_url, options.item_webhook_url):
            self.check_webhook(url, tenant)

    def _new_batch(self, caller: Caller, options: BatchOptions, key: str | None, digest: str) -> NewBatch:
        fingerprint = hashlib.sha256(f"{digest}\n{options.model_dump_json()}".encode()).hexdigest()
        return NewBatch(
            tenant=caller.tenant,
            idempotency_key=key,
            fingerprint=fingerprint,
            request_id=caller.request_id,
            **options.model_dump(),
        )

    def _uploaded(self, caller: Caller, id: str) -> bytes:
        """Return an upload's bytes. It stays until a job was made of it, so that a submission may be repeated."""
        key = object_keys.upload(caller.tenant, id)
        try:
            uuid.UUID(id)
            size, most = self._ledger.store.size(key), self._settings.max_upload_bytes
            if size > most:
                detail = f"The upload has {size} bytes; at most {most} are accepted."
                raise Problem(413, "image-too-large", detail)
            return self._ledger.store.get(key)
        except (NoSuchObject, ValueError):
            detail = "There is no upload with this id, or its image hasn't arrived."
            raise Problem(422, "no-such-upload", detail) from None

    async def _check_file(self, number: int, data: bytes, tenant: str) -> None:
        try:
            await self._decoding.media_type(data, tenant)
        except BadImage as error:
            raise type(error)(f"File number {number}: {error}") from None

    def _refuse_crowding(self, tenant: str, priority: str) -> None:
        """Refuse what would wait behind too many others."""
        chosen = self._settings
        waiting, messages = self._ledger.redis.turns.waiting(READ_QUEUES, tenant, priority)
        if waiting >= chosen.max_queued_per_tenant:
            detail = f"{chosen.max_queued_per_tenant} of your jobs are waiting. Submit more when some have ended."
            raise Problem(429, "too-many-queued", detail, {"Retry-After": "30"})
        if messages >= chosen.max_queued:
            detail = "Too many jobs are waiting. Try again later."
            raise Problem(503, "queue-full", detail, {"Retry-After": "30"})

    def _refuse_unqueued(self) -> None:
        """Refuse more than a bound of jobs that only the store has, while Redis is unavailable."""
        if self._unqueued < self._settings.max_open_per_gateway:
            return
        if not self._ledger.redis.ping():
            detail = "The queue is unavailable and too many jobs wait for it. Try again later."
            raise Problem(503, "queue-unavailable", detail, {"Retry-After": "10"})
        self._unqueued = 0

    def _count_unqueued(self, queued: bool) -> None:
        with self._lock:
            self._unqueued = 0 if queued else self._unqueued + 1


def _rows_of(named: list[NamedFile]) -> list[Row]:
    contents = _contents(each.file for each in named)
    return [
        Row(image=f"file:{sha256}", name=each.row_name) for (sha256, _), each in zip(contents, named, strict=True)
    ]


def _content(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _contents(files: Iterable[BinaryIO]) -> Iterator[tuple[str, bytes]]:
    """Yield each file's SHA-256 and bytes, one file in memory at a time."""
    for file in files:
        data = _content(file)
        yield hashlib.sha256(data).hexdigest(), data
