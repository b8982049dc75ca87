"""/v1/batches/{id}/results.ndjson: names, the order of ends, resuming, and what was cancelled."""

import asyncio
import json
import threading
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest

from emx_gateway.services import batch_results
from emx_gateway.services.webhook_sender import webhook_event
from emx_shared.ledger import advance_batch, cancel, finish, object_keys
from emx_shared.ledger.batches.manifest_pages import item_id
from emx_shared.ledger.records import Failure, Outcome
from support.gateway import RunningGateway

NDJSON = {"Content-Type": "application/x-ndjson"}


def submitted(gateway: RunningGateway, *images: str, **options: Any) -> str:
    rows = "".join(json.dumps({"image": image, "name": f"row {n}"}) + "\n" for n, image in enumerate(images))
    answer = gateway.client.post("/v1/batches", content=rows, headers=NDJSON, params=options)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def imported(gateway: RunningGateway, count: int) -> list[str]:
    folder = uuid.uuid4().hex
    for number in range(count):
        gateway.ledger.store.put(object_keys.imported("default", f"{folder}/{number}.png"), gateway.png())
    return [f"import:{folder}/{number}.png" for number in range(count)]


def lines(gateway: RunningGateway, batch: str, **params: Any) -> list[dict[str, Any]]:
    answer = gateway.client.get(f"/v1/batches/{batch}/results.ndjson", params=params)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines() if line]


def test_names_of_a_forms_files_come_back_with_jobs_items_and_results(gateway: RunningGateway) -> None:
    long = "x" * 300 + ".png"
    files = [("files", (name, gateway.png())) for name in ("ward/a.png", "b.png", long)]
    id = gateway.client.post("/v1/batches", files=files).json()["id"]
    advance_batch(gateway.ledger, id)
    for row in range(3):
        gateway.read_by_a_worker(item_id(id, row))
    names = ["ward/a.png", "b.png", long[-255:]]
    assert sorted((line["row"], line["name"]) for line in lines(gateway, id)) == list(enumerate(names))
    items = gateway.client.get(f"/v1/batches/{id}/items").json()["items"]
    assert [item["name"] for item in items] == names
    for row, name in enumerate(names):
        job = gateway.client.get(f"/v1/jobs/{item_id(id, row)}").json()
        assert (job["batch"], job["row"], job["name"]) == (id, row, name)
    listed = gateway.client.get("/v1/jobs", params={"limit": 3}).json()["items"]
    assert {job["name"] for job in listed} == set(names)


def test_the_same_files_under_other_names_are_another_submission(gateway: RunningGateway) -> None:
    data, headers = gateway.png(), {"Idempotency-Key": uuid.uuid4().hex}
    first, again = (
        gateway.client.post("/v1/batches", files=[("files", ("a.png", data))], headers=headers) for _ in range(2)
    )
    assert first.json()["id"] == again.json()["id"]
    other = gateway.client.post("/v1/batches", files=[("files", ("b.png", data))], headers=headers)
    gateway.problem(other, 409, "idempotency-conflict")


def test_a_stream_is_resumed_behind_its_last_line(gateway: RunningGateway) -> None:
    id = submitted(gateway, *imported(gateway, 4))
    advance_batch(gateway.ledger, id)
    for row in (2, 0, 3):
        gateway.read_by_a_worker(item_id(id, row))
        time.sleep(0.01)
    all_of_them = lines(gateway, id)
    assert [line["row"] for line in all_of_them] == [2, 0, 3]
    # What ended within a few seconds before comes again, as it may have become visible late.
    assert [line["row"] for line in lines(gateway, id, after=all_of_them[1]["cursor"])] == [2, 0, 3]
    later = f"{int(all_of_them[2]['cursor'].partition('-')[0]) + 60_000_000}-3"
    assert lines(gateway, id, after=later) == []
    answer = gateway.client.get(f"/v1/batches/{id}/results.ndjson", params={"after": "next"})
    gateway.problem(answer, 400, "bad-cursor")


def test_all_that_ended_long_before_a_cursor_is_left_out(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_results, "_OVERLAP", timedelta(0))
    id = submitted(gateway, *imported(gateway, 3))
    advance_batch(gateway.ledger, id)
    for row in (1, 0, 2):
        gateway.read_by_a_worker(item_id(id, row))
        time.sleep(0.01)
    record = gateway.ledger.batch(id)
    assert record

    async def rows(after: batch_results.ResultCursor | None) -> list[dict[str, Any]]:
        found = batch_results.batch_results(gateway.ledger, record, False, after)
        return [json.loads(line) async for line in found]

    first, second, third = asyncio.run(rows(None))
    for last, rest in ((first, [0, 2]), (second, [2]), (third, [])):
        cursor = batch_results.ResultCursor.parse(last["cursor"])
        assert [line["row"] for line in asyncio.run(rows(cursor))] == rest


def test_a_followed_batch_without_news_shows_that_the_connection_lives(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_results, "HEARTBEAT_EVERY", 0.1)
    monkeypatch.setattr(batch_results, "FOLLOW_EVERY", 0.05)
    id = submitted(gateway, "import:x", paused=True)
    record = gateway.ledger.batch(id)
    assert record

    async def first() -> str:
        return await anext(batch_results.batch_results(gateway.ledger, record, True, None))

    assert asyncio.run(first()) == "\n"


def test_a_cancelled_batchs_counts_items_and_results_agree(gateway: RunningGateway) -> None:
    id = submitted(gateway, *imported(gateway, 2), *["import:x"] * 698, paused=True)
    where = f"/v1/batches/{id}"
    gateway.client.post(f"{where}/resume")
    advance_batch(gateway.ledger, id)
    gateway.read_by_a_worker(item_id(id, 1))
    cancelled = gateway.client.post(f"{where}/cancel").json()
    assert cancelled["state"] == "cancelled"
    counts = {state: n for state, n in cancelled["counts"].items() if n}
    assert counts["cancelled"] > 100 and counts["succeeded"] == 1 and "open" not in counts
    for state in ("queued", "running", "cancelled", "failed", "succeeded"):
        found = gateway.client.get(f"{where}/items", params={"state": state, "limit": 1000}).json()["items"]
        assert len(found) == counts.get(state, 0), state
    for params in ({}, {"follow": True}):
        results = lines(gateway, id, **params)
        assert sorted(line["row"] for line in results) == list(range(700))
        by_state = {state: [line for line in results if line["state"] == state] for state in counts}
        assert {state: len(found) for state, found in by_state.items()} == counts
        assert all(line["name"] == f"row {line['row']}" for line in results)
    assert {line["row"] for line in lines(gateway, id, after=results[-1]["cursor"])} >= {699}


def test_a_follower_of_a_cancelled_batch_waits_for_what_is_being_cancelled(gateway: RunningGateway) -> None:
    id = submitted(gateway, *imported(gateway, 2))
    advance_batch(gateway.ledger, id)
    cancel(gateway.ledger, id)  # and its items not yet
    assert lines(gateway, id) == []
    threading.Timer(1.5, advance_batch, (gateway.ledger, id)).start()
    assert sorted(line["row"] for line in lines(gateway, id, follow=True)) == [0, 1]


def test_an_unreadable_record_spoils_its_own_line_only(gateway: RunningGateway) -> None:
    id = submitted(gateway, *imported(gateway, 3))
    advance_batch(gateway.ledger, id)
    for row in range(3):
        gateway.read_by_a_worker(item_id(id, row))
    gateway.ledger.store.put(object_keys.outcome(item_id(id, 1)), b'{"state": "of another version"}')
    found = {line["row"]: line for line in lines(gateway, id)}
    assert [found[row]["state"] for row in range(3)] == ["succeeded"] * 3
    assert found[1]["failure"]["code"] == "unreadable" and found[0]["report"] and found[2]["report"]


def test_the_webhook_of_a_batch_tells_what_became_of_its_items(gateway: RunningGateway) -> None:
    id = submitted(gateway, "import:missing", "import:missing")
    advance_batch(gateway.ledger, id)
    advance_batch(gateway.ledger, id)
    now = gateway.ledger.now()
    said = webhook_event(gateway.ledger, id, "batch.completed", now)["data"]
    assert said == {"id": id, "state": "completed", "total": 2, "counts": {"failed": 2}}
    item = webhook_event(gateway.ledger, item_id(id, 1), "job.failed", now)["data"]
    assert (item["row"], item["name"], item["batch"]) == (1, "row 1", id)
    other = submitted(gateway, "import:x", paused=True)
    gateway.client.post(f"/v1/batches/{other}/cancel")
    said = webhook_event(gateway.ledger, other, "batch.cancelled", now)["data"]
    assert said == {"id": other, "state": "cancelled", "total": 1, "counts": {"cancelled": 1}}


def test_retry_leaves_out_what_would_fail_again_unless_asked(gateway: RunningGateway) -> None:
    id = submitted(gateway, *imported(gateway, 2), "import:missing")
    advance_batch(gateway.ledger, id)
    for row, code in enumerate(("bad-image", "engine")):
        failure = Failure(code=code, message="x")
        outcome = Outcome(state="failed", failure=failure, finished_at=gateway.ledger.now())  # type: ignore[arg-type]
        finish(gateway.ledger, item_id(id, row), outcome)
    retry = f"/v1/batches/{id}/retry"
    made = gateway.client.post(retry).json()
    items = gateway.client.get(f"/v1/batches/{made['id']}/items").json()["items"]
    assert [item["name"] for item in items] == ["row 1", "row 2"]
    assert gateway.client.post(retry, params={"include_permanent": True}).json()["total"] == 3
    damaged = submitted(gateway, *imported(gateway, 1))
    advance_batch(gateway.ledger, damaged)
    finish(
        gateway.ledger,
        item_id(damaged, 0),
        outcome.model_copy(update={"failure": Failure(code="bad-image", message="x")}),
    )
    gateway.problem(gateway.client.post(f"/v1/batches/{damaged}/retry"), 409, "only-permanent-failures")


def test_an_upload_with_a_key_can_be_resumed(gateway: RunningGateway) -> None:
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = gateway.client.post("/v1/uploads", headers=key).json()
    assert (first["received"], first["max_bytes"]) == (False, 1_000_000)
    assert gateway.client.put(first["url"], content=gateway.png()).status_code == 204
    again = gateway.client.post("/v1/uploads", headers=key).json()
    assert (again["id"], again["received"]) == (first["id"], True)
    assert gateway.client.post("/v1/uploads").json()["id"] != first["id"]
