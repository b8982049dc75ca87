"""Records that a newer version wrote, as they are met while processes are updated one by one, and damaged ones."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from emx_shared.api_keys import KeyRing
from emx_shared.ledger import Reconciler, advance_batch, deliver, object_keys, submit
from emx_shared.ledger.batches.manifest_pages import item_id
from emx_shared.ledger.jobs.delivery import EndpointAnswer
from emx_shared.ledger.records import Delivery
from emx_shared.store.directory import DirectoryStore
from support.damage import DAMAGES, damage
from support.gateway import RunningGateway, StartGateway
from support.mortality import as_courier, new_job

SECRET_TEXT = "Mrs Example has fluid."


def rewritten(gateway: RunningGateway, key: str, **fields: Any) -> None:
    """Change a stored object as another version might have written it."""
    stored = json.loads(gateway.ledger.store.get(key))
    gateway.ledger.store.put(key, json.dumps({**stored, **fields}).encode())


def read(gateway: RunningGateway, **fields: str) -> str:
    job: str = gateway.submit(gateway.png(), **fields).json()["id"]
    gateway.read_by_a_worker(job)
    return job


def test_the_next_minor_version_may_add_fields_anywhere(gateway: RunningGateway) -> None:
    job = read(gateway)
    rewritten(gateway, object_keys.record(job), format="2.1", ward="north")
    outcome = json.loads(gateway.ledger.store.get(object_keys.outcome(job)))
    report = {**outcome["report"], "confidence": {"of": "all"}}
    report["locations"] = [{**place, "depth": 3} for place in report["locations"]]
    rewritten(gateway, object_keys.outcome(job), format="2.1", report=report, reviewed=False)
    shown = gateway.client.get(f"/v1/jobs/{job}").json()
    assert shown["state"] == "succeeded" and shown["report"]["findings"] == "There is fluid."
    for form in ("report.json", "report.txt", "report.html", "report.pdf", "overlay.png"):
        assert gateway.client.get(f"/v1/jobs/{job}/{form}").status_code == 200
    assert job in [one["id"] for one in gateway.client.get("/v1/jobs").json()["items"]]


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        (object_keys.record, {"priority": "cosmic"}),
        (object_keys.record, {"kind": "series"}),
        (object_keys.outcome, {"state": "amended", "note": SECRET_TEXT}),
        (object_keys.outcome, {"report": {"findings": SECRET_TEXT}}),
    ],
    ids=["priority", "kind of record", "state", "report"],
)
def test_a_list_shows_what_it_can_and_names_what_it_cant(
    redis_url: str,
    tmp_path: Path,
    start_gateway: StartGateway,
    capfd: pytest.CaptureFixture[str],
    key: Any,
    fields: dict[str, Any],
) -> None:
    with start_gateway(redis_url, tmp_path) as gateway:
        good, strange = read(gateway, patient="p1"), read(gateway, patient="p1")
        rewritten(gateway, key(strange), **fields)
        for query in ({}, {"patient": "p1"}):
            page = gateway.client.get("/v1/jobs", params=query).json()
            assert [one["id"] for one in page["items"] if one["id"] in (good, strange)] == [good]
            assert strange in page["unreadable"]
        gateway.problem(gateway.client.get(f"/v1/jobs/{strange}"), 503, "unreadable-record")
        assert gateway.client.get(f"/v1/jobs/{good}").status_code == 200
        assert gateway.client.delete("/v1/jobs", params={"patient": "p1"}).json() == {"erased": 2}
        assert not list(gateway.ledger.store.list(object_keys.inputs(strange)))
    logged = capfd.readouterr()
    assert SECRET_TEXT not in logged.out + logged.err


def test_an_unreadable_batch_or_delivery_is_named_in_its_list(gateway: RunningGateway) -> None:
    files = [("files", ("x.png", gateway.png()))]
    batch = gateway.client.post("/v1/batches", files=files).json()["id"]
    rewritten(gateway, object_keys.record(batch), priority="cosmic")
    page = gateway.client.get("/v1/batches").json()
    assert batch in page["unreadable"] and batch not in [one["id"] for one in page["items"]]
    now = gateway.ledger.now()
    owed = Delivery(
        id="11111111-1111-4111-8111-111111111111", job=batch, url="x", event="y", created_at=now, next_at=now
    )
    gateway.ledger.store.put(object_keys.outbox(owed.id), owed.dump())
    gateway.ledger.redis.listings.add_delivery("default", owed.id, now)
    rewritten(gateway, object_keys.outbox(owed.id), status="bounced")
    assert owed.id in gateway.client.get("/v1/webhooks/deliveries").json()["unreadable"]
    gateway.ledger.store.delete(object_keys.outbox(owed.id))


def test_what_is_read_and_written_again_loses_nothing_of_a_newer_version(gateway: RunningGateway) -> None:
    now = gateway.ledger.now()
    owed = Delivery(
        id="22222222-2222-4222-8222-222222222222", job="j", url="x", event="y", created_at=now, next_at=now
    )
    gateway.ledger.store.put(object_keys.outbox(owed.id), owed.dump())
    rewritten(gateway, object_keys.outbox(owed.id), format="2.1", channel="amqp")
    deliver(gateway.ledger, owed.id, lambda _: EndpointAnswer(500))
    kept = json.loads(gateway.ledger.store.get(object_keys.outbox(owed.id)))
    assert (kept["format"], kept["channel"], kept["tries"]) == ("2.1", "amqp", 1)
    gateway.ledger.store.delete(object_keys.outbox(owed.id))


def test_the_reconciler_passes_over_what_it_cant_read_and_says_so_once(
    gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    strange, waiting = (gateway.submit(gateway.png()).json()["id"] for _ in range(2))
    rewritten(gateway, object_keys.record(strange), priority="cosmic", patient=SECRET_TEXT)
    gateway.ledger.redis.epoch.begin()
    reconciler = Reconciler(gateway.ledger)
    for _ in range(3):
        reconciler.round()
    said = [text for text in caplog.messages if text.startswith(f"open/{strange}")]
    assert len(said) == 1 and "newer version" in said[0] and SECRET_TEXT not in caplog.text
    gateway.client.post(f"/v1/jobs/{waiting}/cancel")
    gateway.ledger.store.delete(object_keys.open_marker(strange))


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("key", [object_keys.record, object_keys.outcome])
def test_a_damaged_job_can_be_erased_by_its_id(gateway: RunningGateway, how: str, key: Any) -> None:
    job = read(gateway)
    damage(gateway.ledger.store, key(job), how)
    assert gateway.client.delete(f"/v1/jobs/{job}").status_code == 204
    assert not list(gateway.ledger.store.list(object_keys.inputs(job)))
    gateway.problem(gateway.client.delete(f"/v1/jobs/{job}"), 404, "no-such-job")


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("key", [object_keys.record, object_keys.outcome])
def test_a_damaged_batch_can_be_erased_by_its_id(gateway: RunningGateway, how: str, key: Any) -> None:
    batch = gateway.client.post("/v1/batches", files=[("files", ("x.png", gateway.png()))]).json()["id"]
    damage(gateway.ledger.store, key(batch), how)
    assert gateway.client.delete(f"/v1/batches/{batch}").status_code == 202
    as_courier(gateway.ledger, batch)
    assert not list(gateway.ledger.store.list(object_keys.batch(batch)))
    gateway.problem(gateway.client.delete(f"/v1/batches/{batch}"), 404, "no-such-batch")


def test_a_damaged_record_is_erased_by_whom_it_names_alone(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    ring = KeyRing(DirectoryStore(tmp_path))
    keys = {tenant: ring.create(tenant)[1] for tenant in ("mine", "yours")}
    with start_gateway(redis_url, tmp_path) as gateway:
        cut, emptied = (submit(gateway.ledger, new_job(tenant="mine"))[0].id for _ in range(2))
        damage(gateway.ledger.store, object_keys.record(cut), "cut")
        damage(gateway.ledger.store, object_keys.record(emptied), "emptied")
        answers = [
            (tenant, job, gateway.client.delete(f"/v1/jobs/{job}", headers={"Authorization": f"Bearer {key}"}))
            for tenant, key in reversed(keys.items())
            for job in (cut, emptied)
        ]
    done = [(tenant, job) for tenant, job, answer in answers if answer.status_code == 204]
    assert done == [("mine", cut)] and len(answers) == 4


@pytest.mark.parametrize("how", DAMAGES)
def test_of_a_cancelled_batch_all_results_come_beside_a_damaged_one(gateway: RunningGateway, how: str) -> None:
    files = [("files", (f"{n}.png", gateway.png())) for n in range(3)]
    batch = gateway.client.post("/v1/batches", files=files).json()["id"]
    advance_batch(gateway.ledger, batch)
    gateway.read_by_a_worker(item_id(batch, 0))
    for row, key in ((0, object_keys.outcome), (1, object_keys.record)):
        damage(gateway.ledger.store, key(item_id(batch, row)), how)
    assert gateway.client.post(f"/v1/batches/{batch}/cancel").status_code == 200
    results = gateway.client.get(f"/v1/batches/{batch}/results.ndjson").text.splitlines()
    rows = {json.loads(line)["row"] for line in results}
    assert {1, 2} <= rows
    assert gateway.client.get(f"/v1/batches/{batch}/items").json()["items"]
    assert gateway.client.get(f"/v1/batches/{batch}").json()["state"] == "cancelled"
    gateway.ledger.store.delete(object_keys.open_marker(item_id(batch, 1)))


@pytest.mark.parametrize("how", DAMAGES)
def test_an_export_has_the_images_beside_what_is_damaged(gateway: RunningGateway, how: str) -> None:
    hook = {"webhook_url": "https://example.org/hook", "patient": f"exported {how}"}
    jobs = [submit(gateway.ledger, new_job(gateway.png(), **hook))[0].id for _ in range(3)]
    for job in jobs:
        gateway.read_by_a_worker(job)
    damage(gateway.ledger.store, object_keys.record(jobs[0]), how)
    owed = Delivery.id_of(jobs[1], hook["webhook_url"], "job.succeeded")
    damage(gateway.ledger.store, object_keys.outbox(owed), how)
    answer = gateway.client.get("/v1/export", params={"patient": hook["patient"]})
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    for job in jobs[1:]:
        assert {f"jobs/{job}/request.json", f"jobs/{job}/input.png"} <= set(names)
    gateway.ledger.store.delete(object_keys.outbox(owed))


@pytest.mark.parametrize("how", DAMAGES)
def test_what_is_damaged_of_one_hides_nothing_of_others(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway, how: str
) -> None:
    with start_gateway(redis_url, tmp_path) as gateway:
        hook, ledger = "https://example.org/hook", gateway.ledger
        jobs = [submit(ledger, new_job(gateway.png(), patient="p", webhook_url=hook))[0].id for _ in range(5)]
        for job in jobs:
            gateway.read_by_a_worker(job)
        files = [("files", ("x.png", gateway.png()))]
        batches = [gateway.client.post("/v1/batches", files=files).json()["id"] for _ in range(2)]
        owed = [Delivery.id_of(job, hook, "job.succeeded") for job in jobs]
        good = (jobs[0], batches[0], owed[0])
        for key in (
            object_keys.record(jobs[1]),
            object_keys.outcome(jobs[2]),
            object_keys.open_marker(jobs[3]),
            object_keys.outbox(owed[4]),
            object_keys.record(batches[1]),
        ):
            damage(ledger.store, key, how)
        for path, id in (
            ("jobs", jobs[0]),
            ("jobs?patient=p", jobs[0]),
            ("jobs?state=succeeded", jobs[0]),
            ("batches", batches[0]),
            ("webhooks/deliveries", owed[0]),
        ):
            answer = gateway.client.get(f"/v1/{path}")
            assert answer.status_code == 200 and id in [one["id"] for one in answer.json()["items"]], path
        for path in (f"jobs/{good[0]}", f"batches/{good[1]}", f"webhooks/deliveries/{good[2]}"):
            assert gateway.client.get(f"/v1/{path}").status_code == 200
        again = gateway.client.post("/v1/webhooks/redeliver?created_after=2020-01-01T00:00:00Z&status=owed")
        assert again.json()["redelivered"] == 4
        assert gateway.client.delete("/v1/jobs", params={"patient": "p"}).json() == {"erased": 5}
        assert not list(ledger.store.list("groups/"))
