"""/v1/batches: files and manifests, progress, results while it runs."""

import json
import threading
import uuid
from typing import Any

import pytest

from emx_gateway.services import batch_items
from emx_gateway.services.batch_items import item_page
from emx_shared.contracts.states import JobState
from emx_shared.ledger import advance_batch, object_keys
from emx_shared.ledger.batches.manifest_pages import item_id
from support.gateway import RunningGateway
from support.mortality import as_courier

CSV, NDJSON = {"Content-Type": "text/csv"}, {"Content-Type": "application/x-ndjson"}


def put(gateway: RunningGateway, count: int) -> list[str]:
    """Images that the operator put into the store, as a manifest names them."""
    folder = uuid.uuid4().hex
    for number in range(count):
        gateway.ledger.store.put(object_keys.imported("default", f"{folder}/{number}.png"), gateway.png())
    return [f"import:{folder}/{number}.png" for number in range(count)]


def test_files_are_accepted_whole_or_not_at_all(gateway: RunningGateway) -> None:
    good = [("files", ("a.png", gateway.png())), ("files", ("b.png", gateway.png()))]
    accepted = gateway.client.post("/v1/batches", files=good, data={"priority": "routine"})
    assert accepted.status_code == 202
    batch = gateway.client.get(accepted.headers["location"]).json()
    assert (batch["counts"], batch["total"], batch["priority"], batch["state"]) == (
        {"open": 2},
        2,
        "routine",
        "running",
    )
    bad = gateway.client.post("/v1/batches", files=[*good, ("files", ("c.png", b"nothing"))])
    gateway.problem(bad, 415, "not-an-image")
    assert "number 3" in bad.json()["detail"]
    gateway.problem(gateway.client.post("/v1/batches", files={"other": b"x"}), 422, "invalid-request")


def test_a_manifest_runs_to_its_end_with_results_on_the_way(gateway: RunningGateway) -> None:
    one, two = put(gateway, 2)
    manifest = f"image,name,arm\n{one},first,control\n{two},second,\nimport:missing.png,third,x\n"
    accepted = gateway.client.post("/v1/batches", content=manifest, headers=CSV, params={"priority": "stat"})
    assert accepted.status_code == 202
    where, id = accepted.headers["location"], accepted.json()["id"]
    lines: list[Any] = []

    def follow() -> None:
        with gateway.client.stream("GET", f"{where}/results.ndjson", params={"follow": True}) as answer:
            lines.extend(json.loads(line) for line in answer.iter_lines())

    follower = threading.Thread(target=follow)
    follower.start()
    advance_batch(gateway.ledger, id)
    batch = gateway.client.get(where).json()
    assert batch["counts"] == {"failed": 1, "open": 2}
    assert batch["per_minute"] is None and batch["seconds_left"] is None  # nothing was read yet
    for row in range(2):
        gateway.read_by_a_worker(item_id(id, row))
    advance_batch(gateway.ledger, id)
    follower.join(20)
    ended = gateway.client.get(where).json()
    assert (ended["state"], ended["counts"]) == ("completed", {"succeeded": 2, "failed": 1, "open": 0})
    assert sorted(line["row"] for line in lines) == [0, 1, 2]
    by_row = {line["row"]: line for line in lines}
    assert [by_row[row]["name"] for row in range(3)] == ["first", "second", "third"]
    assert by_row[0]["metadata"] == {"arm": "control"} and by_row[1]["metadata"] == {}
    assert by_row[0]["report"]["findings"] and by_row[2]["failure"]["code"] == "no-image"
    items = gateway.client.get(f"{where}/items", params={"limit": 2}).json()
    assert [item["state"] for item in items["items"]] == ["succeeded", "succeeded"]
    rest = gateway.client.get(f"{where}/items", params={"row": items["next_row"]}).json()
    assert (rest["items"][0]["name"], rest["next_row"]) == ("third", None)
    assert ended["per_minute"] > 0 and ended["seconds_left"] is None
    retried = gateway.client.post(f"{where}/retry")
    assert retried.status_code == 202 and (retried.json()["total"], retried.json()["retry_of"]) == (1, id)
    newest = gateway.client.get("/v1/batches", params={"limit": 2}).json()
    assert [one["id"] for one in newest["items"]] == [retried.json()["id"], id]
    gateway.problem(gateway.client.post(f"{where}/pause"), 409, "already-ended")


def test_whoever_follows_results_gets_each_once(gateway: RunningGateway) -> None:
    rows = "".join(json.dumps({"image": image}) + "\n" for image in put(gateway, 3))
    where = gateway.client.post("/v1/batches", content=rows, headers=NDJSON).headers["location"]
    id = where.rpartition("/")[2]
    advance_batch(gateway.ledger, id)
    seen: list[int] = []
    with gateway.client.stream("GET", f"{where}/results.ndjson", params={"follow": True}) as answer:
        lines = answer.iter_lines()
        for row in range(3):  # each in a look of its own
            gateway.read_by_a_worker(item_id(id, row))
            seen.append(json.loads(next(lines))["row"])
        advance_batch(gateway.ledger, id)
        seen += [json.loads(line)["row"] for line in lines]
    assert seen == [0, 1, 2]


def test_a_batch_can_rest_and_be_given_up(gateway: RunningGateway) -> None:
    rows = "".join(json.dumps({"image": image}) + "\n" for image in put(gateway, 3))
    where = gateway.client.post("/v1/batches", content=rows, headers=NDJSON).headers["location"]
    assert gateway.client.post(f"{where}/pause").json()["state"] == "paused"
    assert gateway.client.post(f"{where}/resume").json()["state"] == "running"
    cancelled = gateway.client.post(f"{where}/cancel").json()
    assert (cancelled["state"], cancelled["counts"]) == ("cancelled", {"cancelled": 3, "open": 0})
    gateway.problem(gateway.client.post(f"{where}/retry"), 409, "nothing-failed")
    gateway.problem(gateway.client.get("/v1/batches/unknown"), 404, "no-such-batch")


def test_a_hundred_thousand_rows_are_accepted_in_one_request(gateway: RunningGateway) -> None:
    def rows() -> Any:
        for number in range(100_000):
            yield f'{{"image": "import:{number}.png"}}\n'.encode()

    accepted = gateway.client.post("/v1/batches", content=rows(), headers=NDJSON)
    assert accepted.status_code == 202
    assert accepted.json()["total"] == 100_000
    assert gateway.client.post(f"{accepted.headers['location']}/cancel").json()["state"] == "cancelled"
    more = b'{"image": "import:x.png"}\n' * 100_001
    gateway.problem(gateway.client.post("/v1/batches", content=more, headers=NDJSON), 413, "too-many-rows")


@pytest.mark.parametrize(
    ("headers", "content", "where"),
    [
        (NDJSON, b"", "body"),
        (NDJSON, b"{", "row 1"),
        (NDJSON, b"[" * 60_000, "row 1"),
        (NDJSON, b"\xff\n", "line 1"),
        (NDJSON, b'{"image": "import:a.png"}\n{"image": "file:///etc/passwd"}', "row 2.image"),
        (NDJSON, b'{"image": "import:../../jobs/x"}', "row 1.image"),
        (NDJSON, b'{"image": "import:.parts/x"}', "row 1.image"),
        (NDJSON, b'{"image": "import:' + b"a" * 300 + b'"}', "row 1.image"),
        (NDJSON, b'{"image": "import:a.png", "extra": 1}', "row 1.extra"),
        (NDJSON, b'{"image": "import:a.png", "name": "' + b"x" * 70_000 + b'"}', "line 1"),
        (CSV, b"name\nx\n", "row 1.image"),
        (CSV, b"image,name\nimport:a.png\n", "row 1"),
        (CSV, b'image\n"import:a.png\n', "line"),
        (CSV, b"image\n", "body"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_with_the_row(
    gateway: RunningGateway, headers: dict[str, str], content: bytes, where: str
) -> None:
    answer = gateway.client.post("/v1/batches", content=content, headers=headers)
    gateway.problem(answer, 422, "invalid-request")
    assert answer.json()["errors"][0]["where"].startswith(where)


def test_a_repeated_key_gives_the_same_batch(gateway: RunningGateway) -> None:
    rows, headers = b'{"image": "import:a.png"}\n', {**NDJSON, "Idempotency-Key": uuid.uuid4().hex}
    first, again = (
        gateway.client.post("/v1/batches", content=rows, headers=headers).json()["id"] for _ in range(2)
    )
    assert first == again
    other = gateway.client.post("/v1/batches", content=rows * 2, headers=headers)
    gateway.problem(other, 409, "idempotency-conflict")


def test_a_batch_is_erased_with_all_that_it_brought(gateway: RunningGateway) -> None:
    files = [("files", ("a.png", gateway.png())), ("files", ("b.png", gateway.png()))]
    where = gateway.client.post("/v1/batches", files=files).headers["location"]
    id = where.rpartition("/")[2]
    advance_batch(gateway.ledger, id)
    gateway.read_by_a_worker(item_id(id, 0))
    assert gateway.client.delete(where).status_code == 202
    as_courier(gateway.ledger, id)
    for path in (where, f"{where}/items", f"/v1/jobs/{item_id(id, 0)}", f"/v1/jobs/{item_id(id, 1)}"):
        assert gateway.client.get(path).status_code == 404
    assert id not in [one["id"] for one in gateway.client.get("/v1/batches").json()["items"]]
    left = [entry.key for entry in gateway.ledger.store.list("") if id in entry.key or item_id(id, 0) in entry.key]
    assert (
        sorted(key.rpartition("/")[2] for key in left) == ["outcome.json", "outcome.json"] + ["request.json"] * 2
    )


def test_items_of_one_state_are_found_page_by_page(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f'{{"image": "import:missing", "name": "{n}"}}\n' for n in range(1200))
    id = gateway.client.post("/v1/batches", content=rows, headers=NDJSON).json()["id"]
    advance_batch(gateway.ledger, id)
    where = f"/v1/batches/{id}/items"
    assert gateway.client.get(where, params={"state": "running"}).json() == {"items": [], "next_row": None}
    waiting = gateway.client.get(where, params={"state": "queued", "limit": 1000}).json()
    assert [item["row"] for item in waiting["items"]] == list(range(500, 1200))
    failed = gateway.client.get(where, params={"state": "failed", "row": 490, "limit": 5}).json()
    assert [item["row"] for item in failed["items"]] == [490, 491, 492, 493, 494] and failed["next_row"] == 495
    assert gateway.ledger.redis.leases.take(item_id(id, 777), "t")
    (running,) = gateway.client.get(where, params={"state": "running", "row": 600}).json()["items"]
    assert (running["row"], running["name"]) == (777, "777")
    monkeypatch.setattr(batch_items, "_LOOKED_AT", 300)
    found = item_page(gateway.ledger, gateway.ledger.batch(id), None, 100, 10, JobState.EXPIRED)
    assert (found.items, found.next_row) == ([], 400)
