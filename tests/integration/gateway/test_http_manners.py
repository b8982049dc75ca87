"""What HTTP clients, caches and operators expect of a server beside the content."""

import gzip
import json
import re
from typing import Any

import httpx
import pytest

from emx_gateway.services.webhook_sender import webhook_event
from emx_shared.ledger.records import JobRecord
from support.gateway import RunningGateway

RENDERINGS = (
    "report",
    "report.json",
    "report.txt",
    "report.html",
    "report.pdf",
    "overlay.png",
    "image.png",
    "input",
)


@pytest.fixture(scope="module")
def job(gateway: RunningGateway) -> str:
    id: str = gateway.submit(gateway.png(), patient="P-17").json()["id"]
    gateway.read_by_a_worker(id)
    return id


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/jobs", "DELETE, GET, HEAD, POST"),
        ("POST", "/v1/jobs/x", "DELETE, GET, HEAD"),
        ("PATCH", "/healthz", "GET, HEAD"),
        ("GET", "/explain", "POST"),
    ],
)
def test_a_method_that_isnt_supported_names_those_that_are(
    gateway: RunningGateway, method: str, path: str, allowed: str
) -> None:
    answer = gateway.client.request(method, path)
    gateway.problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_head_and_etag_save_a_download(gateway: RunningGateway, job: str, rendering: str) -> None:
    path = f"/v1/jobs/{job}/{rendering}"
    whole = gateway.client.get(path, headers={"Accept-Encoding": "identity"})
    head = gateway.client.head(path, headers={"Accept-Encoding": "identity"})
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "etag", "content-length"):
        assert head.headers[name] == whole.headers[name]
    tag = whole.headers["etag"]
    for had in (tag, f'"other", W/{tag}', "*"):
        unchanged = gateway.client.get(path, headers={"If-None-Match": had})
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", tag)
    assert gateway.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    if rendering == "report":
        assert "Accept" in whole.headers["vary"]


def test_head_of_a_stream_ends(gateway: RunningGateway) -> None:
    waiting = gateway.submit(gateway.png()).json()["id"]
    head = gateway.client.head(f"/v1/jobs/{waiting}/events")
    assert head.status_code == 200 and head.headers["content-type"].startswith("text/event-stream")
    gateway.client.post(f"/v1/jobs/{waiting}/cancel")


def test_nothing_that_names_a_patient_is_kept_by_a_cache(gateway: RunningGateway, job: str) -> None:
    for path in (f"/v1/jobs/{job}", "/v1/jobs", "/v1/batches", "/v1/webhooks/deliveries", "/readyz"):
        assert "no-store" in gateway.client.get(path).headers["cache-control"], path
    for path in RENDERINGS:
        assert "no-store" in gateway.client.get(f"/v1/jobs/{job}/{path}").headers["cache-control"], path
    assert "no-store" in gateway.submit(gateway.png()).headers["cache-control"]
    assert "no-store" in gateway.client.get("/v1/jobs/unknown").headers["cache-control"]


def test_lists_and_reports_are_compressed_and_pictures_arent(gateway: RunningGateway, job: str) -> None:
    with httpx.Client(base_url=gateway.url, headers={"Accept-Encoding": "gzip"}) as client:
        with client.stream("GET", f"/v1/jobs/{job}/report.json") as answer:
            assert answer.headers["content-encoding"] == "gzip" and "Accept-Encoding" in answer.headers["vary"]
            assert json.loads(gzip.decompress(b"".join(answer.iter_raw())))["impression"] == "Effusion."
        for path in ("overlay.png", "report.pdf", "input"):
            assert "content-encoding" not in client.get(f"/v1/jobs/{job}/{path}").headers


def test_pages_are_linked(gateway: RunningGateway) -> None:
    for _ in range(3):
        gateway.submit(gateway.png(), study="pages")
    seen, path = [], "/v1/jobs?study=pages&limit=1"
    while path:
        page = gateway.client.get(path)
        seen += [item["id"] for item in page.json()["items"]]
        path = str(page.url.join(page.links["next"]["url"])) if "next" in page.links else ""
    assert len(seen) == len(set(seen)) == 3


@pytest.mark.parametrize(
    "path",
    ["/v1/jobs?patinet=P-17", "/v1/batches?state=running", "/v1/webhooks/deliveries?state=owed"],
)
def test_an_unknown_filter_is_refused(gateway: RunningGateway, path: str) -> None:
    refused = gateway.client.get(path)
    gateway.problem(refused, 422, "invalid-request")
    assert refused.json()["errors"][0]["where"] == f"query.{path.partition('?')[2].partition('=')[0]}"


def test_options_in_the_query_are_refused_where_the_body_has_place_for_them(gateway: RunningGateway) -> None:
    files: Any = {"file": ("x.png", gateway.png())}
    refused = gateway.client.post("/v1/jobs?priority=stat", files=files)
    gateway.problem(refused, 422, "invalid-request")
    raw = gateway.client.post(
        "/v1/jobs?priority=stat", content=gateway.png(), headers={"Content-Type": "image/png"}
    )
    assert raw.json()["priority"] == "stat"


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("sent", "id"),
    [
        ({"X-Request-ID": "ris-42"}, "ris-42"),
        ({"traceparent": TRACE}, "4bf92f3577b34da6a3ce929d0e0e4736"),
        ({"X-Request-ID": "a b"}, None),
        ({}, None),
    ],
)
def test_a_request_is_found_again_under_its_id(
    gateway: RunningGateway, sent: dict[str, str], id: str | None
) -> None:
    files: Any = {"file": ("x.png", gateway.png())}
    answer = gateway.client.post("/v1/jobs", files=files, headers=sent)
    given = answer.headers["x-request-id"]
    assert given == id if id else re.fullmatch("[0-9a-f]{32}", given)
    assert answer.headers.get("traceparent") == sent.get("traceparent")
    record = gateway.ledger.record(answer.json()["id"])
    assert isinstance(record, JobRecord) and record.request_id == given


def test_times_are_written_in_one_way(gateway: RunningGateway, job: str) -> None:
    event = webhook_event(gateway.ledger, job, "job.succeeded", gateway.ledger.now())
    texts = [gateway.client.get(f"/v1/jobs/{job}").text, json.dumps(event)]
    times = [found for text in texts for found in re.findall(r'"(20\d\d-[^"]+)"', text)]
    assert len(times) > 5 and all(re.fullmatch(r"[-0-9]+T[:0-9.]+Z", found) for found in times)
