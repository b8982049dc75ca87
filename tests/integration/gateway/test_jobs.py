"""/v1/jobs: every way to submit, to wait, to list and to erase."""

import io
import json
import threading
import time
import uuid
import zipfile
from datetime import UTC, datetime

import httpx
import pytest
from httpx_sse import connect_sse

from emx_shared.ledger import start
from support.gateway import RunningGateway


def test_the_image_may_be_the_body_and_the_options_the_query(gateway: RunningGateway) -> None:
    data = gateway.png()
    options = {"priority": "stat", "metadata": '{"site": "north"}', "study": "s", "expires_in": "60"}
    answer = gateway.client.post("/v1/jobs", content=data, headers={"Content-Type": "image/png"}, params=options)
    assert answer.status_code == 202
    job = answer.json()
    assert (job["priority"], job["metadata"], job["study"]) == ("stat", {"site": "north"}, "s")
    lasts = datetime.fromisoformat(job["expires_at"]) - datetime.fromisoformat(job["submitted_at"])
    assert lasts.total_seconds() == 60
    assert gateway.client.get(f"{answer.headers['location']}/input").content == data


def test_the_image_may_be_uploaded_before(gateway: RunningGateway) -> None:
    upload = gateway.client.post("/v1/uploads")
    assert upload.status_code == 201
    id, url = upload.json()["id"], upload.json()["url"]
    early = gateway.client.post("/v1/jobs", json={"upload": id})
    gateway.problem(early, 422, "no-such-upload")
    data = gateway.png()
    assert httpx.put(url, content=data).status_code == 204
    answer = gateway.client.post("/v1/jobs", json={"upload": id, "priority": "backlog", "patient": "p"})
    assert answer.status_code == 202
    assert gateway.client.get(f"{answer.headers['location']}/input").content == data
    assert answer.json()["priority"] == "backlog"
    gateway.problem(gateway.client.post("/v1/jobs", json={"upload": id}), 422, "no-such-upload")
    gateway.problem(httpx.put(url, content=data), 409, "upload-used")
    assert not list(gateway.ledger.store.list("uploads/default/" + id))


def test_an_upload_that_is_submitted_twice_with_one_key_is_one_job(gateway: RunningGateway) -> None:
    upload = gateway.client.post("/v1/uploads").json()
    assert httpx.put(upload["url"], content=gateway.png()).status_code == 204
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first, again = (gateway.client.post("/v1/jobs", json={"upload": upload["id"]}, headers=key) for _ in range(2))
    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    other = gateway.client.post("/v1/jobs", json={"upload": upload["id"], "priority": "stat"}, headers=key)
    gateway.problem(other, 409, "idempotency-conflict")


def test_the_key_of_an_erased_job_says_so(gateway: RunningGateway) -> None:
    key, data = {"Idempotency-Key": uuid.uuid4().hex, "Content-Type": "image/png"}, gateway.png()
    where = gateway.client.post("/v1/jobs", content=data, headers=key).headers["location"]
    assert gateway.client.delete(where).status_code == 204
    gateway.problem(gateway.client.post("/v1/jobs", content=data, headers=key), 409, "erased")


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches", "/explain"])
def test_a_form_in_a_charset_that_does_not_exist_is_refused(gateway: RunningGateway, path: str) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="study"\r\n\r\ny\r\n--x--\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"}
    gateway.problem(gateway.client.post(path, content=body, headers=kind), 400, "bad-form")


def test_an_upload_url_cannot_be_bent(gateway: RunningGateway) -> None:
    url = httpx.URL(gateway.client.post("/v1/uploads").json()["url"])
    for change in ({"tenant": "other"}, {"expires": "99999999999"}, {"signature": "0" * 64}):
        gateway.problem(httpx.put(url.copy_merge_params(change), content=b"x"), 403, "bad-upload-url")
    other = url.copy_with(path=f"/v1/uploads/{uuid.uuid4()}")
    gateway.problem(httpx.put(other, content=b"x"), 403, "bad-upload-url")
    gateway.problem(httpx.put(url, content=bytes(1_500_000)), 413, "image-too-large")


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"priority": "urgent"}, "body.priority"),
        ({"metadata": "[]"}, "body.metadata"),
        ({"metadata": '{"a": 1}'}, "body.metadata.a"),
        ({"study": "x" * 256}, "body.study"),
        ({"expires_in": "0"}, "body.expires_in"),
        ({"expires_in": "soon"}, "body.expires_in"),
        ({"indication": "x" * 501}, "body.indication"),
        ({"unheard_of": "x"}, "body.unheard_of"),
    ],
)
def test_an_option_that_does_not_fit_is_named(gateway: RunningGateway, fields: dict[str, str], where: str) -> None:
    answer = gateway.submit(gateway.png(), **fields)
    gateway.problem(answer, 422, "invalid-request")
    assert any(error["where"].startswith(where) for error in answer.json()["errors"])


def test_a_body_that_is_not_json_is_told(gateway: RunningGateway) -> None:
    for content in (b"{", b"[" * 100_000, b"\xff"):
        headers = {"Content-Type": "application/json"}
        gateway.problem(gateway.client.post("/v1/jobs", content=content, headers=headers), 400, "not-json")
    gateway.problem(gateway.client.post("/v1/jobs", json=[]), 422, "invalid-request")
    gateway.problem(gateway.submit(gateway.png(), metadata="{"), 400, "not-json")


def test_a_client_may_prefer_to_wait(gateway: RunningGateway) -> None:
    def later() -> None:
        while not (waiting := gateway.client.get("/v1/jobs", params={"study": "prefer"}).json()["items"]):
            time.sleep(0.05)
        gateway.read_by_a_worker(waiting[0]["id"])

    worker = threading.Thread(target=later)
    worker.start()
    answer = gateway.client.post(
        "/v1/jobs", files={"file": gateway.png()}, data={"study": "prefer"}, headers={"Prefer": "wait=20"}
    )
    worker.join()
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.json()["report"]["findings"]
    began = time.monotonic()
    slow = gateway.client.post(
        "/v1/jobs", files={"file": gateway.png()}, headers={"Prefer": "respond-async, wait=1"}
    )
    assert slow.status_code == 202 and 1 <= time.monotonic() - began < 5


def test_a_poll_may_be_long(gateway: RunningGateway) -> None:
    job = gateway.submit(gateway.png()).json()["id"]
    threading.Timer(0.5, gateway.read_by_a_worker, (job,)).start()
    began = time.monotonic()
    answer = gateway.client.get(f"/v1/jobs/{job}", params={"wait": 20})
    assert answer.json()["state"] == "succeeded"
    assert time.monotonic() - began < 5
    gateway.problem(gateway.client.get(f"/v1/jobs/{job}", params={"wait": 61}), 422, "invalid-request")


def test_a_job_shows_its_place_and_its_times(gateway: RunningGateway) -> None:
    gateway.ledger.redis.connection.client.delete("line:stat:default", "round:stat")
    first, second = (gateway.submit(gateway.png(), priority="stat").json() for _ in range(2))
    assert (first["ahead"], second["ahead"], second["attempts"]) == (0, 1, 0)
    assert gateway.ledger.redis.turns.take("stat") == first["id"]
    assert start(gateway.ledger, first["id"], "token")
    running = gateway.client.get(f"/v1/jobs/{first['id']}").json()
    assert (running["state"], running["attempts"], running["ahead"]) == ("running", 1, None)
    assert running["started_at"] >= running["submitted_at"]
    assert gateway.client.get(f"/v1/jobs/{second['id']}").json()["ahead"] == 0


def test_jobs_are_listed_by_pages_and_filters(gateway: RunningGateway) -> None:
    study = uuid.uuid4().hex
    made = [gateway.submit(gateway.png(), study=study, priority=p).json()["id"] for p in ("stat", "routine") * 3]
    gateway.client.post(f"/v1/jobs/{made[0]}/cancel")
    for filters in ({}, {"study": study}):
        seen, cursor = [], None
        while len(seen) < len(made):
            page = gateway.client.get(
                "/v1/jobs", params={"limit": 2, **filters, **({"cursor": cursor} if cursor else {})}
            )
            seen += [item["id"] for item in page.json()["items"]]
            cursor = page.json()["next_cursor"]
        assert seen[: len(made)] == made[::-1]
    found = gateway.client.get("/v1/jobs", params={"study": study, "state": "cancelled"}).json()
    assert [item["id"] for item in found["items"]] == made[:1]
    assert found["next_cursor"] is None and found["complete"]
    stat = gateway.client.get("/v1/jobs", params={"study": study, "priority": "stat"}).json()["items"]
    assert [item["id"] for item in stat] == made[::2][::-1]
    after = {"study": study, "submitted_after": datetime.now(UTC).isoformat()}
    assert gateway.client.get("/v1/jobs", params=after).json()["items"] == []
    gateway.problem(gateway.client.get("/v1/jobs", params={"cursor": "x"}), 400, "bad-cursor")


def test_listing_shows_no_report(gateway: RunningGateway) -> None:
    study = uuid.uuid4().hex
    gateway.read_by_a_worker(gateway.submit(gateway.png(), study=study).json()["id"])
    (item,) = gateway.client.get("/v1/jobs", params={"study": study}).json()["items"]
    assert item["state"] == "succeeded" and item["report"] is None


def test_everything_of_a_patient_is_erased_at_once(gateway: RunningGateway) -> None:
    patient = uuid.uuid4().hex
    jobs = [gateway.submit(gateway.png(), patient=patient).json()["id"] for _ in range(3)]
    gateway.read_by_a_worker(jobs[0])
    other = gateway.submit(gateway.png(), patient=uuid.uuid4().hex).json()["id"]
    gateway.problem(gateway.client.delete("/v1/jobs"), 422, "invalid-request")
    assert gateway.client.delete("/v1/jobs", params={"patient": patient}).json() == {"erased": 3}
    for job in jobs:
        gateway.problem(gateway.client.get(f"/v1/jobs/{job}"), 404, "no-such-job")
    assert gateway.client.get("/v1/jobs", params={"patient": patient}).json()["items"] == []
    assert gateway.client.get(f"/v1/jobs/{other}").status_code == 200
    store = gateway.ledger.store
    for job in jobs:
        kept = b"".join(store.get(entry.key) for entry in store.list(f"jobs/{job}/"))
        assert patient.encode() not in kept and b"There is fluid" not in kept


def test_events_tell_the_state_the_text_and_the_end(gateway: RunningGateway) -> None:
    job = gateway.submit(gateway.png()).json()["id"]

    worker = threading.Thread(target=gateway.written_by_a_worker, args=(job, "FINDINGS: ", "There is fluid."))
    worker.start()
    with connect_sse(gateway.client, "GET", f"/v1/jobs/{job}/events") as source:
        events = list(source.iter_sse())
    worker.join()
    names = [event.event for event in events]
    assert names[0] == "state" and names[-1] == "ended"
    texts = [event.json() for event in events if event.event == "text"]
    assert texts == [{"offset": 0, "text": "FINDINGS: "}, {"offset": 10, "text": "There is fluid."}]
    assert events[-1].json()["report"]["findings"] == "There is fluid."
    assert [json.loads(e.data)["state"] for e in events if e.event == "state"][-1] == "succeeded"
    # Whoever comes back gets what came after.
    seen = next(event for event in events if event.event == "text")
    with connect_sse(
        gateway.client, "GET", f"/v1/jobs/{job}/events", headers={"Last-Event-ID": seen.id}
    ) as source:
        rest = list(source.iter_sse())
    assert [event.json() for event in rest if event.event == "text"] == texts[1:]
    assert rest[-1].event == "ended"


def test_all_that_is_stored_of_a_patient_can_be_taken_away(gateway: RunningGateway) -> None:
    data = gateway.png()
    kind = {"Content-Type": "image/png"}
    jobs = [
        gateway.client.post("/v1/jobs?patient=P-export&indication=Cough", content=data, headers=kind).json()["id"]
        for _ in range(2)
    ]
    gateway.read_by_a_worker(jobs[0])
    gateway.submit(gateway.png(), patient="another")
    row = '{"image": "import:a.png", "patient": "P-export", "name": "row of a batch"}\n'
    lines = {"Content-Type": "application/x-ndjson"}
    batch = gateway.client.post("/v1/batches", content=row, headers=lines).json()["id"]
    answer = gateway.client.get("/v1/export", params={"patient": "P-export"})
    assert answer.headers["content-type"] == "application/zip" and "no-store" in answer.headers["cache-control"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        assert file.testzip() is None
        names = set(file.namelist())
        found = {name: file.read(name) for name in names}
    read, waiting = jobs
    assert names == {
        "README.txt",
        *(f"jobs/{job}/{part}" for job in jobs for part in ("request.json", "input.png")),
        f"jobs/{read}/outcome.json",
        f"batches/{batch}/row-0.json",
    }
    assert found[f"jobs/{waiting}/input.png"] == data and b"Cough" in found[f"jobs/{waiting}/request.json"]
    assert b"There is fluid" in found[f"jobs/{read}/outcome.json"]
    gateway.problem(gateway.client.get("/v1/export"), 422, "invalid-request")
