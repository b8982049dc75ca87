"""Measures for ``emx bench queue`` what grows with the number of jobs that wait."""

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from emx_benchmarks.gateway.served_process import NotServing
from emx_benchmarks.queue.preloading import QUEUE, TENANT, Preloader
from emx_benchmarks.queue.queue_system import QueueSystem
from emx_benchmarks.queue.receiver import RefusingOnce
from emx_shared.demo_files import DEMO_IMAGE
from emx_shared.redis_state.turns import line
from explainmyxray.processes import COURIER, WORKER

NOTES = (
    "per_job_cost_ratio_100k_vs_1k, list_ratio_100k_vs_1k: the worst ratio of medians, of two systems that take "
    "turns. reconcile_due_seconds_at_100k: the longest time from when a webhook's next try was due until it came, "
    "while 100,000 jobs are open. stat_wait_p95_over_job_seconds: from submission to start, behind a full "
    "worker's backlog, over the time that such a job takes on an idle worker. Waiting jobs were written straight "
    "to store and Redis. Clients, servers and Redis share one machine."
)

_SETTINGS = {
    "EMX_WEBHOOK_ALLOW_PRIVATE": "true",
    "EMX_WEBHOOK_SECRET": "whsec_" + "c2VjcmV0" * 4,
    "EMX_LEASE": "2",
}

_MEMORY = Path("/dev/shm")
"""Where the store is kept if the system has it: neither the disk's noise nor its syncing hides what grows."""

_WARM = 3
"""Requests of each kind that aren't measured."""

_LISTS_EVERY = 3
"""Rounds: a page of a list takes as long as all that is done with one job."""

_PATIENCE = 60.0
"""Seconds."""

_LISTS = {
    "list": "/v1/jobs?limit=50",
    "list_failed": "/v1/jobs?state=failed&limit=50",
    "list_queued": "/v1/jobs?state=queued&limit=50",
    "list_running": "/v1/jobs?state=running&limit=50",
    "metrics": "/metrics",
}


@dataclass(frozen=True)
class QueueBenchSizes:
    """How much the queue benchmark measures.

    Attributes:
        few, many: jobs that are open in the two systems.
        rounds: in which they take turns.
        webhooks: whose second try is waited for.
        lost: jobs that lose their turn.
        backlog: jobs behind which stat jobs are submitted.
        stat: how many of these.
    """

    few: int = 1000
    many: int = 100_000
    rounds: int = 30
    webhooks: int = 10
    lost: int = 20
    backlog: int = 5000
    stat: int = 10


FULL = QueueBenchSizes(rounds=200, webhooks=40, lost=100, stat=40)


def bench_queue(sizes: QueueBenchSizes, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure submitting, asking, cancelling, listing, reconciling and what is urgent.

    Args:
        sizes: how much.
        say: shows a line of progress.

    Returns:
        The figures as the command prints them; seconds and ratios.

    Raises:
        NotServing: a process didn't start.
    """
    with (
        tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder,
        _started(Path(folder), sizes, say) as (few, many, study, backlog),
    ):
        say("Submitting, asking, cancelling and listing")
        took = _alternate({"few": few, "many": many}, sizes.rounds)
        say(f"Reconciling {sizes.many:,} open jobs")
        reconciled = _reconcile(many, sizes)
        for done in (few, many):
            done.stop()
        say(f"Reading what is urgent before {sizes.backlog:,} others")
        urgent = _urgent(study, backlog, sizes)
    ratios = {name: took["many"][name] / took["few"][name] for name in took["few"]}
    return {
        "per_job_cost_ratio_100k_vs_1k": max(ratios[name] for name in ("submit", "status", "cancel")),
        "list_ratio_100k_vs_1k": max(ratios[name] for name in _LISTS),
        **reconciled,
        **urgent,
        "ratios": ratios,
        "milliseconds": {which: {k: v * 1e3 for k, v in row.items()} for which, row in took.items()},
        "open_jobs": {"few": sizes.few, "many": sizes.many, "backlog": sizes.backlog},
        "store_in_memory": _MEMORY.is_dir(),
        "notes": NOTES,
    }


@contextmanager
def _started(
    folder: Path, sizes: QueueBenchSizes, say: Callable[[str], None]
) -> Iterator[tuple[QueueSystem, QueueSystem, QueueSystem, Preloader]]:
    """Provide a system with few open jobs, one with many, and one with a worker and what will fill its queue."""
    systems: list[QueueSystem] = []
    try:
        for name in ("few", "many", "study"):
            systems.append(QueueSystem(folder / name, **_SETTINGS))
        few, many, study = systems
        for system in systems:
            system.wait_until_ready("redis", "store")
        backlog = study.preloader()
        study.run("worker", sys.executable, *WORKER[1:], EMX_DEVICE="cpu")
        say(f"Writing {sizes.many:,} open jobs")
        for system, jobs in ((few, sizes.few), (many, sizes.many)):
            preloader = system.preloader()
            preloader.fail()
            preloader.queue(jobs, to_be_read=False)
        yield few, many, study, backlog
    finally:
        for system in systems:
            system.stop()


def _alternate(systems: dict[str, QueueSystem], rounds: int) -> dict[str, dict[str, float]]:
    """Return for each system the median seconds of each request."""
    took: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in systems}
    for number in range(rounds + _WARM):
        for name, system in sorted(systems.items(), reverse=bool(number % 2)):
            for request, seconds in _requests(system.client, lists=number % _LISTS_EVERY == 0):
                if number >= _WARM:
                    took[name][request].append(seconds)
    return {name: {key: statistics.median(all_) for key, all_ in found.items()} for name, found in took.items()}


def _requests(client: httpx.Client, lists: bool) -> Iterator[tuple[str, float]]:
    began = time.perf_counter()
    job = _submit(client, priority=QUEUE)
    yield "submit", time.perf_counter() - began
    for name, method, path in (
        ("status", "GET", f"/v1/jobs/{job}"),
        ("cancel", "POST", f"/v1/jobs/{job}/cancel"),
        *((name, "GET", path) for name, path in _LISTS.items() if lists),
    ):
        began = time.perf_counter()
        client.request(method, path).raise_for_status()
        yield name, time.perf_counter() - began


def _submit(client: httpx.Client, **fields: str) -> str:
    answer = client.post("/v1/jobs", files={"file": ("x.png", DEMO_IMAGE.read_bytes())}, data=fields)
    return str(answer.raise_for_status().json()["id"])


def _reconcile(system: QueueSystem, sizes: QueueBenchSizes) -> dict[str, float]:
    """Return how long after its time a webhook comes again, and how long a lost job stays unseen."""
    receiver = RefusingOnce(-(-sizes.webhooks // 2))  # after three failures an endpoint is left alone
    try:
        system.run("courier", sys.executable, *COURIER[1:])
        system.wait_until_ready("courier")
        for number in range(sizes.webhooks):
            job = _submit(system.client, priority=QUEUE, webhook_url=receiver.urls[number // 2])
            system.client.post(f"/v1/jobs/{job}/cancel").raise_for_status()
        lost = _LostJobs(system, sizes.lost)
        due: dict[str, float] = {}
        give_up = time.monotonic() + _PATIENCE
        while len(receiver.accepted) < sizes.webhooks or not lost.found_all():
            if time.monotonic() > give_up:
                raise NotServing(f"not everything was reconciled after {_PATIENCE:.0f} s")
            if len(due) < sizes.webhooks:
                due |= _due(system.client)
            time.sleep(0.1)
        late = max(receiver.accepted[event] - at for event, at in due.items())
    finally:
        receiver.close()
    return {"reconcile_due_seconds_at_100k": late, "lost_job_found_seconds_at_100k": lost.seconds}


class _LostJobs:
    """Jobs whose turns were taken by nobody.

    Attributes:
        seconds: after which the last of them got another turn.
    """

    def __init__(self, system: QueueSystem, count: int) -> None:
        """Take the turns of so many jobs from the middle of the line."""
        self.seconds = 0.0
        self._redis, self._began = system.redis, time.monotonic()
        middle = self._redis.zcard(line(QUEUE, TENANT)) // 2
        self._jobs = self._redis.zrange(line(QUEUE, TENANT), middle, middle + count - 1)
        self._redis.zrem(line(QUEUE, TENANT), *self._jobs)

    def found_all(self) -> bool:
        """Return whether all have a turn again."""
        if self._jobs:
            places = self._redis.zmscore(line(QUEUE, TENANT), self._jobs)
            self._jobs = [job for job, place in zip(self._jobs, places, strict=True) if place is None]
            self.seconds = time.monotonic() - self._began
        return not self._jobs


def _due(client: httpx.Client) -> dict[str, float]:
    """Return when each event that was refused once is due again, in seconds of Unix time."""
    items = client.get("/v1/webhooks/deliveries").raise_for_status().json()["items"]
    refused = (item for item in items if item["tries"] == 1 and item["next_try_at"])
    return {item["message"]: datetime.fromisoformat(item["next_try_at"]).timestamp() for item in refused}


def _urgent(system: QueueSystem, backlog: Preloader, sizes: QueueBenchSizes) -> dict[str, float]:
    """Return how long stat jobs wait and take, on an idle worker and behind a backlog."""
    system.wait_until_ready("worker")
    idle = [_run_stat_job(system.client) for _ in range(sizes.stat + _WARM)][_WARM:]
    backlog.queue(sizes.backlog, to_be_read=True)
    for _ in range(_WARM):
        _run_stat_job(system.client)
    behind = [_run_stat_job(system.client) for _ in range(sizes.stat)]
    taken = statistics.median(total - wait for wait, total in idle)
    p95 = statistics.quantiles([wait for wait, _ in behind], n=20)[-1]
    slower = statistics.median(total for _, total in behind) / statistics.median(total for _, total in idle)
    return {
        "stat_wait_p95_over_job_seconds": p95 / taken,
        "stat_total_behind_backlog_vs_idle": slower,
        "stat_job_seconds": taken,
        "stat_wait_p95_seconds": p95,
    }


def _run_stat_job(client: httpx.Client) -> tuple[float, float]:
    """Return after how many seconds a stat job started and ended."""
    job = _submit(client, priority="stat")
    found = client.get(f"/v1/jobs/{job}", params={"wait": 30}).raise_for_status().json()
    if found["state"] != "succeeded":
        raise NotServing(f"a stat job is {found['state']} after 30 s")
    submitted, started, finished = (
        datetime.fromisoformat(found[name]) for name in ("submitted_at", "started_at", "finished_at")
    )
    return (started - submitted).total_seconds(), (finished - submitted).total_seconds()
