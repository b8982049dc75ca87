"""The whole OpenAPI, links included, by schemathesis: no failure, no status and no form that isn't documented."""

import os
import subprocess
import sysconfig
import threading
from contextlib import suppress
from pathlib import Path

from emx_shared.api_keys import KeyRing
from emx_shared.ledger import advance_batch, resume_batch
from support.gateway import RunningGateway, StartGateway

HOOKS = Path(__file__).parent / "schemathesis_hooks.py"
EXAMPLES = os.environ.get("EMX_TEST_EXAMPLES", "40")
"""Of each operation and phase; more, by hand, take longer."""


def test_the_api_is_what_its_schema_says(redis_url: str, tmp_path: Path, start_gateway: StartGateway) -> None:
    settings = {"EMX_EXPLAIN_TIMEOUT": "5", "EMX_WEBHOOK_SECRET": "whsec_" + "c2VjcmV0" * 4}
    with start_gateway(redis_url, tmp_path / "store", **settings) as gateway:
        _, key = KeyRing(gateway.ledger.store).create("north")
        gateway.ledger.redis.connection.client.flushall()  # lines of other tests' jobs, which nobody would read
        over = threading.Event()
        worker = threading.Thread(target=_work, args=(gateway, over))
        worker.start()
        try:
            found = subprocess.run(
                [
                    Path(sysconfig.get_path("scripts")) / "st",
                    "run",
                    f"{gateway.client.base_url}/openapi.json",
                    *(
                        "--header",
                        f"Authorization: Bearer {key}",
                        "--max-examples",
                        EXAMPLES,
                        "--request-timeout",
                        "30",
                    ),
                    # Whether bytes are an image, or a cursor is ours, no schema can say: such input is refused.
                    *("--exclude-checks", "positive_data_acceptance"),
                    # A server that can't be reached, or has no worker, is what these two are there to tell.
                    *("--exclude-path", "/readyz", "--exclude-path", "/v1/webhooks/listen"),
                    *("--seed", "1", "--no-color"),
                ],
                env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS)},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=280,
            )
        finally:
            over.set()
            worker.join()
    assert found.returncode == 0, found.stdout[-12_000:]


def _work(gateway: RunningGateway, over: threading.Event) -> None:
    """A worker and a courier, as far as clients can tell."""
    while not over.wait(0.05):
        for queue in ("stat", "routine", "backlog"):
            if job := gateway.ledger.redis.turns.take(queue):
                request = gateway.ledger.record(job)
                if request and gateway.ledger.outcome(job) is None:
                    with suppress(AssertionError):  # it was cancelled in this very moment
                        gateway.read_by_a_worker(job)
        for entry in list(gateway.ledger.store.list("open/")):
            if batch := gateway.ledger.batch(entry.key.removeprefix("open/")):
                resume_batch(gateway.ledger, batch.id)  # or a paused batch would be followed for ever
                advance_batch(gateway.ledger, batch.id)
