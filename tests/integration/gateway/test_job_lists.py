"""GET /v1/jobs: summaries, the filter by finding, long pages, and records that are read several at a time."""

import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from emx_gateway.services import job_pages
from emx_gateway.services.job_pages import JobQuery, job_page
from emx_shared.contracts.findings import BY_LABEL
from emx_shared.contracts.report import Report
from emx_shared.contracts.states import JobState
from emx_shared.fair_threads import FairThreads
from emx_shared.ledger import Ledger, NewJob, object_keys, submit
from emx_shared.ledger.records import Outcome
from emx_shared.store import StoreError
from support.gateway import RunningGateway


def listed(gateway: RunningGateway, **params: Any) -> list[dict[str, Any]]:
    answer = gateway.client.get("/v1/jobs", params=params)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def submitted(gateway: RunningGateway, study: str, **parts: Any) -> tuple[str, Report]:
    job = gateway.submit(gateway.png(), study=study).json()["id"]
    return job, gateway.read_by_a_worker(job, **parts)


def with_finding(gateway: RunningGateway, study: str, label: str) -> str:
    """Return a job whose report has a finding."""
    finding = BY_LABEL[label]
    job = gateway.submit(gateway.png(), study=study).json()["id"]
    places = gateway.read_by_a_worker(gateway.submit(gateway.png()).json()["id"]).locations
    place = places[0].model_copy(update={"label": finding.label, "code": finding.code})
    gateway.read_by_a_worker(job, locations=(place,))
    return str(job)


@pytest.fixture
def study() -> str:
    return uuid.uuid4().hex


def test_a_list_says_in_brief_what_the_reports_say(gateway: RunningGateway, study: str) -> None:
    job, report = submitted(gateway, study, warnings=("one", "two"))
    waiting = gateway.submit(gateway.png(), study=study).json()["id"]
    without, with_summary = listed(gateway, study=study, include="summary")
    (place,) = report.locations
    assert (without["id"], without["summary"]) == (waiting, None)
    assert (with_summary["id"], with_summary["report"]) == (job, None)
    assert with_summary["summary"] == {
        "findings": [
            {
                "label": "pleural effusion",
                "code": "pleural_effusion",
                "laterality": "left",
                "colour": place.colour,
                "box_normalised": place.box_normalised.model_dump(),
                "probability": 0.816,
            }
        ],
        "abstained": False,
        "warnings": 2,
        "width": 80,
        "height": 60,
        "demo": report.model.demo,
    }
    assert with_summary["feedback"] is None
    said = {"reviewer": "AB", "verdict": "agree"}
    assert gateway.client.post(f"/v1/jobs/{job}/feedback", json=said).status_code == 201
    assert listed(gateway, study=study, include="summary")[1]["feedback"]["reviewer"] == "AB"
    assert listed(gateway, study=study)[1]["feedback"] is None


def test_a_summary_is_given_only_where_it_was_asked_for(gateway: RunningGateway, study: str) -> None:
    job, _ = submitted(gateway, study)
    assert [one["summary"] for one in listed(gateway, study=study)] == [None]
    assert "summary" not in gateway.client.get(f"/v1/jobs/{job}").json()
    assert listed(gateway, study=study, include=["summary", "summary"])[0]["summary"]
    for wrong in ("report", "", "summary,summary"):
        gateway.problem(gateway.client.get("/v1/jobs", params={"include": wrong}), 422, "invalid-request")


def test_jobs_are_listed_by_what_their_reports_find(gateway: RunningGateway, study: str) -> None:
    effusion, _ = submitted(gateway, study)
    heart = with_finding(gateway, study, "cardiomegaly")
    nothing, _ = submitted(gateway, study, locations=())
    declined, _ = submitted(gateway, study, locations=(), abstained=True)
    waiting = gateway.submit(gateway.png(), study=study).json()["id"]

    def found(**params: Any) -> list[str]:
        of_study = [one["id"] for one in listed(gateway, study=study, **params)]
        everywhere = [one["id"] for one in listed(gateway, limit=500, **params)]
        ours = {effusion, heart, nothing, declined, waiting}
        assert of_study == [id for id in everywhere if id in ours]
        return of_study

    assert found(finding="pleural_effusion") == [effusion]
    assert found(finding="cardiomegaly", state="succeeded") == [heart]
    assert found(finding="none") == [nothing]  # a model that declined says nothing
    assert found(finding="pneumothorax") == found(finding="none", state="queued") == []


@pytest.mark.parametrize("code", ["pleural effusion", "Pleural_Effusion", "unheard_of", ""])
def test_an_unknown_finding_is_refused_with_a_sentence(gateway: RunningGateway, code: str) -> None:
    answer = gateway.client.get("/v1/jobs", params={"finding": code})
    gateway.problem(answer, 422, "invalid-request")
    (error,) = answer.json()["errors"]
    assert error["where"] == "query.finding" and error["what"].startswith("No finding has this code. Use one")


def test_pages_of_a_filter_follow_each_other_with_all_that_was_asked_for(
    gateway: RunningGateway, study: str
) -> None:
    made = [submitted(gateway, study, **({} if n % 3 else {"locations": ()}))[0] for n in range(9)]
    params: dict[str, Any] = {"study": study, "finding": "pleural_effusion", "include": "summary", "limit": 2}
    seen, path, pages = [], f"/v1/jobs?{'&'.join(f'{name}={value}' for name, value in params.items())}", 0
    while path:
        answer = gateway.client.get(path)
        assert all(one["summary"]["findings"] for one in answer.json()["items"])
        seen += [one["id"] for one in answer.json()["items"]]
        link = answer.headers.get("link", "")
        path, pages = f"/v1/jobs{link[1 : link.index('>')]}" if link else "", pages + 1
    assert seen == [id for n, id in enumerate(made) if n % 3][::-1]
    assert pages >= 3


def test_a_page_may_have_500_jobs_and_no_more(gateway: RunningGateway) -> None:
    made = {submit(gateway.ledger, NewJob(b"an image", "image/png"))[0].id for _ in range(120)}
    assert made <= {one["id"] for one in listed(gateway, limit=500)}
    gateway.problem(gateway.client.get("/v1/jobs", params={"limit": 501}), 422, "invalid-request")


@pytest.fixture
def readers() -> Iterator[FairThreads]:
    threads = FairThreads(8, "test", 8)
    yield threads
    threads.close()


@pytest.fixture
def jobs(gateway: RunningGateway) -> list[str]:
    """Jobs of a tenant without others, the newest first."""
    tenant = uuid.uuid4().hex
    made = [submit(gateway.ledger, NewJob(b"an image", "image/png", tenant=tenant))[0].id for _ in range(40)]
    return [tenant, *made[::-1]]


def test_pages_are_in_order_whichever_record_is_read_first(
    gateway: RunningGateway, readers: FairThreads, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, *made = jobs
    real, most, now, lock = Ledger.outcome, 0, 0, threading.Lock()

    def outcome(self: Ledger, id: str) -> Outcome | None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02 * (made.index(id) % 3 == 0))  # every third comes late
        with lock:
            now -= 1
        return real(self, id)

    monkeypatch.setattr(Ledger, "outcome", outcome)
    seen, cursor = list[str](), None
    while len(seen) < len(made):
        page = job_page(gateway.ledger, readers, tenant, JobQuery(), 15, cursor)
        seen, cursor = seen + [one.id for one in page.items], page.next_cursor
    assert seen == made
    assert 1 < most <= 8


def test_no_more_records_are_read_than_the_page_has(
    gateway: RunningGateway, readers: FairThreads, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, *made = jobs
    asked, real = list[str](), Ledger.outcome
    monkeypatch.setattr(Ledger, "outcome", lambda self, id: (asked.append(id), real(self, id))[1])
    job_page(gateway.ledger, readers, tenant, JobQuery(), 13, None, summarised=True)
    assert sorted(asked) == sorted(made[:13])


def test_damaged_records_are_named_in_order_and_a_store_that_fails_fails_the_list(
    gateway: RunningGateway, readers: FairThreads, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, *made = jobs
    damaged = [made[3], made[4], made[20], made[38]]
    for id in damaged:
        gateway.ledger.store.put(object_keys.record(id), b'{"format": "2.0", "kind": "odd"}')
    page = job_page(gateway.ledger, readers, tenant, JobQuery(), 500, None)
    assert page.unreadable == damaged
    assert [one.id for one in page.items] == [id for id in made if id not in damaged]
    first = job_page(gateway.ledger, readers, tenant, JobQuery(), 4, None)
    assert (first.unreadable, [one.id for one in first.items]) == (damaged[:2], [*made[:3], made[5]])

    def fail(self: Ledger, id: str) -> None:
        raise StoreError("away")

    monkeypatch.setattr(Ledger, "outcome", fail)
    with pytest.raises(StoreError, match="away"):
        job_page(gateway.ledger, readers, tenant, JobQuery(), 4, None)


def test_cursors_hold_where_a_page_ends_with_what_was_looked_at(
    gateway: RunningGateway, readers: FairThreads, jobs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant, *made = jobs
    monkeypatch.setattr(job_pages, "LOOKED_AT", 15)
    for limit in (500, 15, 7):
        seen, cursor, pages = list[str](), None, 0
        while pages == 0 or cursor:
            page = job_page(gateway.ledger, readers, tenant, JobQuery(state=None), limit, cursor)
            seen, cursor, pages = seen + [one.id for one in page.items], page.next_cursor, pages + 1
            assert len(page.items) <= min(limit, 15)
        assert seen == made
    few = job_page(gateway.ledger, readers, tenant, JobQuery(state=JobState.FAILED, finding="none"), 5, None)
    assert few.items == []
