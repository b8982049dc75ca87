"""Stands in for the worker: ``python -P -m emx_benchmarks.gateway.stand_in`` gives every job the same report."""

import uuid

from celery import Celery
from kombu import Queue

from emx_shared.contracts.report import ImageFacts, ModelProvenance, Report, Timings, TokenCounts
from emx_shared.contracts.states import JobState
from emx_shared.ledger import finish, start
from emx_shared.ledger.opening import open_ledger
from emx_shared.ledger.records import Outcome
from emx_shared.messaging import READ_QUEUES, READ_TASK, celery_app, run_celery_worker
from emx_shared.settings import settings

app: Celery = celery_app("worker", settings())
app.conf.update(
    task_queues=[Queue(name) for name in READ_QUEUES],
    worker_pool="threads",
    worker_concurrency=settings().slots,
)
_ledger = open_ledger(settings(), "worker")


@app.task(name=READ_TASK)
def read(job: str, queue: str) -> None:
    """Finish the job whose turn it is in the queue, or this job if the turns are unknown."""
    job, token = _ledger.redis.turns.take(queue) or job, uuid.uuid4().hex
    if started := start(_ledger, job, token):
        now = _ledger.store.now()
        outcome = Outcome(
            state=JobState.SUCCEEDED, report=_report(), started_at=started.started_at, finished_at=now
        )
        finish(_ledger, job, outcome)
        _ledger.redis.leases.release(job, token)


def _report() -> Report:
    return Report(
        findings="The lungs are clear.",
        impression="No acute finding.",
        locations=(),
        image=ImageFacts(width=1, height=1, media_type="image/png", sha256="0" * 64),
        model=ModelProvenance(
            name="none", revision="0", quantisation="none", engine="none", dialect="loc", demo=True
        ),
        timings=Timings(),
        tokens=TokenCounts(prompt=0, generated=0),
        created_at=_ledger.store.now(),
    )


if __name__ == "__main__":
    run_celery_worker(app, settings().log_level)
