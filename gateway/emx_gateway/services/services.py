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
from emx_shared.ledger import Ledger
from emx_shared.ledger.records import BatchRecord, JobRecord, Outcome
from emx_shared.settings import Settings
from emx_shared.webhooks import WebhookSecrets


@dataclass
class Services:
    """One of each for the gateway's whole life; all may be used by several threads."""

    ledger: Ledger
    updates: JobUpdates
    rate_limits: RateLimits
    settings: Settings
    secrets: WebhookSecrets = field(init=False)
    decoding: ImageDecoding = field(init=False)
    submissions: Submissions = field(init=False)
    probes: Probes = field(init=False)
    bodies: BodyBudget = field(init=False)

    def __post_init__(self) -> None:
        self.secrets = WebhookSecrets(self.ledger.store, self.settings)
        self.decoding = ImageDecoding(self.settings)
        self.submissions = Submissions(self.ledger, self.rate_limits, self.decoding)
        self.probes = Probes(self.ledger)
        self.bodies = BodyBudget(self.settings.max_bytes_in_hand)

    def close(self) -> None:
        """End the processes that decode."""
        self.decoding.close()

    def find_job(self, id: str, caller: Caller) -> tuple[JobRecord, Outcome | None]:
        """Return a job and its outcome. Raises Problem 404 if it doesn't exist or is another tenant's."""
        job = self.ledger.job(id) if _is_id(id) else None
        if job is None or job.tenant != caller.tenant:
            raise Problem(404, "no-such-job", "There is no job with this id.")
        return job, self.ledger.outcome(id)

    def find_batch(self, id: str, caller: Caller) -> tuple[BatchRecord, Outcome | None]:
        """Return a batch and its outcome. Raises Problem 404 as ``find_job``, and once its erasure has begun."""
        batch = self.ledger.batch(id) if _is_id(id) else None
        if batch is None or batch.tenant != caller.tenant or self.ledger.erasing(id):
            raise Problem(404, "no-such-batch", "There is no batch with this id.")
        return batch, self.ledger.outcome(id)


def _is_id(text: str) -> bool:
    """Return whether a text is one of our ids, lower-case UUIDs: nothing else may reach the store as a key."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
