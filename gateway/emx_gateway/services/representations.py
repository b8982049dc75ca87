"""Jobs, batches and deliveries as the API shows them."""

from typing import Any

from emx_gateway.schemas import Batch, DeliveryLine, FindingSummary, Job, JobSummary
from emx_shared.contracts.report import Report
from emx_shared.contracts.states import BatchState, JobState
from emx_shared.ledger import BatchProgress, Ledger, batch_progress
from emx_shared.ledger.batches.items import is_paused
from emx_shared.ledger.records import BatchRecord, Delivery, JobRecord, Outcome


def job_resource(ledger: Ledger, job: JobRecord, outcome: Outcome | None) -> Job:
    """Return a job as the API shows it, with its report once it succeeded."""
    state = ledger.state(job.id, outcome)
    waits = state == JobState.QUEUED
    return Job(
        id=job.id,
        state=state,
        priority=job.priority,
        submitted_at=job.submitted_at,
        started_at=outcome.started_at if outcome else ledger.redis.marks.started_at(job.id),
        finished_at=outcome.finished_at if outcome else None,
        expires_at=None if outcome else job.expires_at,
        ahead=ledger.redis.turns.ahead(job.id, job.priority, job.tenant) if waits else None,
        attempts=(outcome.attempts or 0) if outcome else len(ledger.open_marker(job.id).deaths) + (not waits),
        metadata=job.metadata,
        study=job.study,
        patient=job.patient,
        batch=job.item.batch if job.item else None,
        row=job.item.row if job.item else None,
        name=job.item.name if job.item else None,
        report=outcome.report if outcome else None,
        failure=outcome.failure if outcome else None,
    )


def job_summary(report: Report) -> JobSummary:
    """Return what a list says of a job's report."""
    names = FindingSummary.model_fields
    return JobSummary(
        findings=[FindingSummary(**{name: getattr(place, name) for name in names}) for place in report.locations],
        abstained=report.abstained,
        warnings=len(report.warnings),
        width=report.image.width,
        height=report.image.height,
        demo=report.model.demo,
    )


def batch_resource(ledger: Ledger, batch: BatchRecord, outcome: Outcome | None) -> Batch:
    """Return a batch as the API shows it, with its progress."""
    so_far = batch_progress(ledger, batch, outcome)
    counts, state = so_far.counts, _batch_state(ledger, batch, outcome)
    rate = _items_per_second(ledger, batch, outcome, so_far)
    return Batch(
        id=batch.id,
        state=state,
        priority=batch.priority,
        submitted_at=batch.submitted_at,
        finished_at=outcome.finished_at if outcome else None,
        total=so_far.rows,
        counts=counts,
        per_minute=round(60 * rate, 2) if rate else None,
        seconds_left=round(counts["open"] / rate, 1) if rate and state == BatchState.RUNNING else None,
        retry_of=batch.retry_of,
    )


def _items_per_second(
    ledger: Ledger, batch: BatchRecord, outcome: Outcome | None, so_far: BatchProgress
) -> float | None:
    """Return how many items are read each second lately; of a batch that has ended, how many on the whole."""
    if outcome is None:
        return ledger.redis.batch_pace.items_per_second(batch.id, ledger.now())
    seconds = (outcome.finished_at - batch.submitted_at).total_seconds()
    return so_far.ended.total() / seconds if seconds > 0 and so_far.ended else None


def delivery_resource(delivery: Delivery) -> DeliveryLine:
    """Return a webhook delivery as the API shows it."""
    return DeliveryLine(
        id=delivery.id,
        message=delivery.message or delivery.id,
        job=delivery.job,
        url=delivery.url,
        event=delivery.event,
        status=delivery.status,
        tries=delivery.tries,
        created_at=delivery.created_at,
        next_try_at=delivery.next_at if delivery.status == "owed" else None,
        last_answer=delivery.last_answer,
    )


def event_data(ledger: Ledger, id: str) -> dict[str, Any]:
    """Return what a webhook says of a job or batch that ended: its id alone once it was erased."""
    record, outcome = ledger.record(id), ledger.outcome(id)
    if outcome and isinstance(record, BatchRecord):
        counts = batch_progress(ledger, record, outcome).counts
        state = BatchState.of_outcome(outcome.state)
        return {"id": id, "state": state, "total": record.rows, "counts": {k: n for k, n in counts.items() if n}}
    if outcome and isinstance(record, JobRecord):
        return job_resource(ledger, record, outcome).model_dump(mode="json")
    return {"id": id}


def _batch_state(ledger: Ledger, batch: BatchRecord, outcome: Outcome | None) -> BatchState:
    if outcome:
        return BatchState.of_outcome(outcome.state)
    return BatchState.PAUSED if is_paused(ledger, batch) else BatchState.RUNNING
