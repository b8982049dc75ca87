"""What every endpoint of the gateway works with."""

import uuid
from dataclasses import dataclass, field

from emx_gateway.auth.authenticator import Caller
from emx_gateway.auth.rate_limits import RateLimits
from emx_gateway.http.body_budget import BodyBudget
from emx_gateway.http.problems import Problem
from emx_gateway.services.image_decoding import ImageDecoding
from emx_gateway.services.job_updates import JobUpdates
from emx_gateway.services.readiness import Probes
from emx_gateway.services.submissions import Submissions
from emx_shared.fair_threads import FairThreads
from emx_shared.ledger import Ledger
from emx_shared.ledger.damage import damaged_batch, damaged_job
from emx_shared.ledger.records import BatchRecord, JobRecord, Outcome
from emx_shared.settings import Settings
from emx_shared.webhooks import WebhookSecrets

_READERS, _READERS_PER_TENANT = 32, 16
"""Threads that read the records of lists. They wait for the store most of the time."""


@dataclass
class Services:
    """One of each for the gateway's whole life; all may be used by several threads."""

    ledger: Ledger
    updates: JobUpdates
    rate_limits: RateLimits
    settings: Settings
    secrets: WebhookSecrets = field(init=False)
    decoding: ImageDecoding = field(init=False)
    readers: FairThreads = field(init=False)
    submissions: Submissions = field(init=False)
    probes: Probes = field(init=False)
    bodies: BodyBudget = field(init=False)

    def __post_init__(self) -> None:
        self.secrets = WebhookSecrets(self.ledger.store, self.settings)
        self.decoding = ImageDecoding(self.settings)
        self.readers = FairThreads(_READERS, "records", _READERS_PER_TENANT)
        self.submissions = Submissions(self.ledger, self.rate_limits, self.decoding)
        self.probes = Probes(self.ledger)
        self.bodies = BodyBudget(self.settings.max_bytes_in_hand)

    def close(self) -> None:
        """End the threads that read records, and the processes that decode."""
        self.readers.close()
        self.decoding.close()

    def find_job(self, id: str, caller: Caller) -> tuple[JobRecord, Outcome | None]:
        """Return a job and its outcome. Raises Problem 404 if it doesn't exist or is another tenant's."""
        job = self.ledger.job(id) if _is_id(id) else None
        if job is None or job.tenant != caller.tenant:
            raise _no_such_job()
        return job, self.ledger.outcome(id)

    def check_erasable_job(self, id: str, caller: Caller) -> None:
        """Raise Problem 404 as ``find_job`` does. A record that can't be read need only say whose it is."""
        job = None
        if _is_id(id):
            job = damaged_job(self.ledger, id, self.ledger.now(), _unnamed_owner(caller)) or self.ledger.job(id)
        if job is None or job.tenant != caller.tenant:
            raise _no_such_job()

    def find_erasable_batch(self, id: str, caller: Caller) -> BatchRecord:
        """Return a batch as ``find_batch`` does. A record that can't be read need only say whose it is."""
        batch = None
        if _is_id(id):
            batch = damaged_batch(self.ledger, id, self.ledger.now(), _unnamed_owner(caller)) or self.ledger.batch(
                id
            )
        begun = self.ledger.if_readable(self.ledger.erasing, id)
        if batch is None or batch.tenant != caller.tenant or begun:
            raise _no_such_batch()
        return batch

    def find_batch(self, id: str, caller: Caller) -> tuple[BatchRecord, Outcome | None]:
        """Return a batch and its outcome. Raises Problem 404 as ``find_job``, and once its erasure has begun."""
        batch = self.ledger.batch(id) if _is_id(id) else None
        if batch is None or batch.tenant != caller.tenant or self.ledger.erasing(id):
            raise _no_such_batch()
        return batch, self.ledger.outcome(id)


def _unnamed_owner(caller: Caller) -> str:
    """Return whose a record is that doesn't say so: everything is everyone's on a server without keys."""
    return caller.tenant if caller.key is None else ""


def _no_such_job() -> Problem:
    return Problem(404, "no-such-job", "There is no job with this id.")


def _no_such_batch() -> Problem:
    return Problem(404, "no-such-batch", "There is no batch with this id.")


def _is_id(text: str) -> bool:
    """Return whether a text is one of our ids, lower-case UUIDs: nothing else may reach the store as a key."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
