"""Client and AsyncClient against a real gateway: the same behaviour of both."""

import inspect
import io
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from PIL import Image

from emx_shared.api_keys import KeyRing
from emx_shared.ledger import EndpointAnswer, advance_batch, deliver, start
from emx_shared.settings import settings
from emx_shared.store.directory import DirectoryStore
from explainmyxray.client import (
    ApiError,
    AsyncClient,
    Client,
    Conflict,
    Ended,
    Forbidden,
    InvalidRequest,
    Job,
    NoReport,
    NotFound,
    RejectedImage,
    StateChanged,
    StillRunning,
    TextWritten,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
)
from explainmyxray.client.streams import EventParser
from explainmyxray.supervisor import free_port
from support.bad_connection import BadConnection
from support.dicom import radiograph, ramp, written
from support.gateway import RunningGateway, StartGateway


class Awaited:
    """An AsyncClient, or its jobs and so on, whose methods wait, so that the same tests are for it."""

    def __init__(self, portal: BlockingPortal, client: Any) -> None:
        self._portal, self._client = portal, client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found if isinstance(found, str) else Awaited(self._portal, found)

        def call(*args: Any, **kwargs: Any) -> Any:
            if inspect.iscoroutinefunction(found):
                return self._portal.call(lambda: found(*args, **kwargs))
            return self._each(found(*args, **kwargs))

        return call

    def _each(self, iterator: AsyncIterator[Any]) -> Iterator[Any]:
        while True:
            try:
                yield self._portal.call(iterator.__anext__)
            except StopAsyncIteration:
                return


Make = Callable[..., Any]


@pytest.fixture(params=["blocking", "asyncio"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes clients of each kind in turn."""
    if request.param == "blocking":
        with ExitStack() as clients:
            yield lambda *args, **kwargs: clients.enter_context(Client(*args, **kwargs))
        return
    with start_blocking_portal() as portal, ExitStack() as clients:

        def made(*args: Any, **kwargs: Any) -> Awaited:
            return Awaited(
                portal, clients.enter_context(portal.wrap_async_context_manager(opened(*args, **kwargs)))
            )

        @asynccontextmanager
        async def opened(*args: Any, **kwargs: Any) -> AsyncIterator[AsyncClient]:
            async with AsyncClient(*args, **kwargs) as client:
                yield client

        yield made


@pytest.fixture
def client(make: Make, gateway: RunningGateway) -> Any:
    return make(gateway.url)


def later(action: Callable[[str], Any], job: str, seconds: float = 0.3) -> None:
    threading.Timer(seconds, action, (job,)).start()


def test_a_study_is_submitted_and_its_report_awaited(client: Any, gateway: RunningGateway) -> None:
    job = client.jobs.submit(gateway.png(), priority="stat", metadata={"site": "north"}, study="s", expires_in=60)
    assert (job.state, job.priority, job.metadata, job.study) == ("queued", "stat", {"site": "north"}, "s")
    assert not job.ended
    later(gateway.read_by_a_worker, job.id)
    ended = client.jobs.wait(job, timeout=20)
    assert ended.ended and ended.state == "succeeded"
    assert ended.report.locations[0].box.xmin == 40
    assert client.jobs.report(job) == ended.report == client.jobs.get(job.id).report


def forms_of_an_image(folder: Path) -> dict[str, Any]:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    picture.save(folder / "mrs-jones.png")
    data = (folder / "mrs-jones.png").read_bytes()
    return {
        "path": folder / "mrs-jones.png",
        "name": str(folder / "mrs-jones.png"),
        "bytes": data,
        "file": io.BytesIO(data),
        "PIL": picture,
        "array": pixels,
    }


@pytest.mark.parametrize("form", ["path", "name", "bytes", "file", "PIL", "array"])
def test_an_image_may_have_any_form(client: Any, gateway: RunningGateway, tmp_path: Path, form: str) -> None:
    job = client.jobs.submit(forms_of_an_image(tmp_path)[form])
    kept = gateway.client.get(f"/v1/jobs/{job.id}/input").content
    assert Image.open(io.BytesIO(kept)).size == (80, 60)


def test_read_submits_and_waits(client: Any, gateway: RunningGateway) -> None:
    study = uuid.uuid4().hex

    def work() -> None:
        while not (found := list(Client(gateway.url).jobs.list(study=study))):
            time.sleep(0.05)
        gateway.read_by_a_worker(found[0].id)

    worker = threading.Thread(target=work)
    worker.start()
    assert client.read(gateway.png(), study=study, timeout=20).report.impression == "Effusion."
    worker.join()


def test_read_tells_why_there_is_no_report(client: Any, gateway: RunningGateway) -> None:
    study = uuid.uuid4().hex

    def cancel() -> None:
        own = Client(gateway.url)
        while not (found := list(own.jobs.list(study=study))):
            time.sleep(0.05)
        own.jobs.cancel(found[0])

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(NoReport, match="cancelled") as caught:
        client.read(gateway.png(), study=study)
    canceller.join()
    assert caught.value.job.state == "cancelled"


def test_waiting_has_an_end(client: Any, gateway: RunningGateway) -> None:
    job = client.jobs.submit(gateway.png())
    began = time.monotonic()
    with pytest.raises(StillRunning, match="queued after 1 s"):
        client.jobs.wait(job, timeout=1)
    assert 1 <= time.monotonic() - began < 3
    with pytest.raises(TimeoutError):
        client.jobs.wait(job, timeout=0)


def test_an_upload_is_submitted_by_its_id(client: Any, gateway: RunningGateway) -> None:
    data = gateway.png()
    upload = client.uploads.create(data)
    job = client.jobs.submit(upload, patient="p", metadata={"a": "b"})
    assert (job.patient, job.metadata) == ("p", {"a": "b"})
    assert gateway.client.get(f"/v1/jobs/{job.id}/input").content == data


def test_events_are_typed_and_end_with_the_job(client: Any, gateway: RunningGateway) -> None:
    job = client.jobs.submit(gateway.png()).id

    worker = threading.Thread(target=gateway.written_by_a_worker, args=(job, "FINDINGS: ", "There is fluid."))
    worker.start()
    events = list(client.jobs.events(job))
    worker.join()
    assert events[0] == StateChanged("queued")
    texts = [event for event in events if isinstance(event, TextWritten)]
    assert texts == [TextWritten(0, "FINDINGS: "), TextWritten(10, "There is fluid.")]
    assert isinstance(events[-1], Ended) and events[-1].job.report
    assert events[-1].job.report.impression == "Effusion."


def test_all_pages_are_listed(client: Any, gateway: RunningGateway) -> None:
    study = uuid.uuid4().hex
    made = [gateway.submit(gateway.png(), study=study).json()["id"] for _ in range(103)]
    assert [job.id for job in client.jobs.list(study=study)] == made[::-1]
    client.jobs.cancel(made[0])
    assert [job.id for job in client.jobs.list(study=study, state="cancelled")] == made[:1]
    first = client.jobs.get(made[0]).submitted_at
    assert len(list(client.jobs.list(study=study, submitted_after=first))) == 102
    assert client.jobs.erase_study(study) == 103


def test_jobs_are_listed_by_finding_with_what_was_found(client: Any, gateway: RunningGateway) -> None:
    study = uuid.uuid4().hex
    found, clear = (gateway.submit(gateway.png(), study=study).json()["id"] for _ in range(2))
    (place,) = gateway.read_by_a_worker(found).locations
    gateway.read_by_a_worker(clear, locations=())
    (listed,) = client.jobs.list(study=study, finding="pleural_effusion", include_summary=True)
    assert listed.id == found and (listed.summary.width, listed.summary.height) == (80, 60)
    assert [(one.code, one.laterality) for one in listed.summary.findings] == [("pleural_effusion", "left")]
    assert listed.summary.findings[0].box_normalised == place.box_normalised
    (listed,) = client.jobs.list(study=study, finding="none")
    assert (listed.id, listed.summary) == (clear, None)
    with pytest.raises(InvalidRequest, match="finding"):
        list(client.jobs.list(finding="unheard of"))


def test_cancelling_twice_is_cancelling(client: Any, gateway: RunningGateway) -> None:
    job = client.jobs.submit(gateway.png())
    assert client.jobs.cancel(job).state == client.jobs.cancel(job).state == "cancelled"
    read = client.jobs.submit(gateway.png())
    gateway.read_by_a_worker(read.id)
    with pytest.raises(Conflict) as caught:
        client.jobs.cancel(read)
    assert caught.value.type == "already-ended"


def test_what_is_erased_is_gone(client: Any, gateway: RunningGateway) -> None:
    patient = uuid.uuid4().hex
    one, *others = (client.jobs.submit(gateway.png(), patient=patient) for _ in range(3))
    client.jobs.erase(one)
    with pytest.raises(NotFound):
        client.jobs.get(one)
    assert client.jobs.erase_patient(patient) == len(others)


def test_the_report_comes_in_every_form(client: Any, gateway: RunningGateway) -> None:
    job = client.jobs.submit(gateway.png())
    with pytest.raises(Conflict) as caught:
        client.jobs.report(job)
    assert caught.value.type == "no-report" and caught.value.retry_after == 1
    gateway.read_by_a_worker(job.id)
    magic = {"json": b"{", "txt": b"", "html": b"<!doctype html>", "pdf": b"%PDF", "png": b"\x89PNG"}
    for kind, first in magic.items():
        assert client.jobs.rendering(job, kind).lower().startswith(first.lower())
    assert max(Image.open(io.BytesIO(client.jobs.overlay(job, longest_side=64))).size) == 64


def test_a_batch_is_followed_to_its_end(client: Any, gateway: RunningGateway) -> None:
    batch = client.batches.create([gateway.png(), gateway.png()], priority="routine")
    assert (batch.total, batch.done, batch.ended) == (2, 0, False)
    assert client.batches.get(batch).id == batch.id
    with pytest.raises(StillRunning):
        list(client.batches.progress(batch, timeout=0))
    later(lambda _: client_of(gateway).batches.cancel(batch), "", 0.5)
    *_, last = client.batches.progress(batch, timeout=20)
    assert last.ended and last.state == "cancelled"
    assert {job.state for job in client.batches.results(batch)} <= {"cancelled"}
    assert client.batches.cancel(batch).state == "cancelled"


def test_results_are_followed_until_the_batch_has_ended(client: Any, gateway: RunningGateway) -> None:
    batch = client.batches.create([gateway.png(), b"no image"], names=["good", "bad"], priority="stat")

    def work() -> None:
        advance_batch(gateway.ledger, batch.id)
        (waiting,) = client_of(gateway).batches.items(batch, state="queued")
        gateway.read_by_a_worker(waiting.id)
        time.sleep(0.5)
        advance_batch(gateway.ledger, batch.id)

    worker = threading.Thread(target=work)
    worker.start()
    results = {result.name: result for result in client.batches.results(batch, follow=True)}
    worker.join()
    assert results["good"].report.impression == "Effusion." and results["good"].failure is None
    assert (results["bad"].state, results["bad"].report) == ("failed", None) and results["bad"].failure.code
    assert client.batches.wait(batch).counts == {"succeeded": 1, "failed": 1, "open": 0}
    assert [item.name for item in client.batches.items(batch, state="failed")] == ["bad"]
    assert next(iter(client.batches.list())).id == batch.id


def test_a_batch_is_paused_and_resumed(client: Any) -> None:
    batch = client.batches.create_from_manifest(
        b"image\nimport:nothing\n", "text/csv", idempotency_key=uuid.uuid4().hex
    )
    assert client.batches.pause(batch).state == "paused"
    assert client.batches.resume(batch).state == "running"
    with pytest.raises(StillRunning, match="0 of 1"):
        client.batches.wait(batch, timeout=0)


def test_the_image_comes_as_it_was_sent_and_as_it_was_read(client: Any, gateway: RunningGateway) -> None:
    data = gateway.png()
    job = client.jobs.submit(data)
    assert client.jobs.input(job) == data
    assert Image.open(io.BytesIO(client.jobs.image(job))).mode == "L"
    deep = client.jobs.submit(written(radiograph(ramp(12), 12)))
    assert "Window" in Image.open(io.BytesIO(client.jobs.image(deep, depth=16))).info
    assert "Window" not in Image.open(io.BytesIO(client.jobs.image(deep))).info
    assert client.report_schema()["title"] == "Report"


def test_webhooks_are_tried_listed_and_sent_again(client: Any, gateway: RunningGateway) -> None:
    assert client.webhooks.rotate_secret().secret.startswith("whsec_")
    assert "whsec_…" in repr(client.webhooks.rotate_secret())
    closed = f"http://127.0.0.1:{free_port()}/hook"
    pong = client.webhooks.ping(closed)
    assert (pong.ok, pong.status, pong.why) == (False, None, "ConnectError")
    job = client.jobs.submit(gateway.png(), webhook_url=closed)
    gateway.read_by_a_worker(job.id)
    (owed,) = client.webhooks.deliveries(job=job.id, status="owed")
    assert client.webhooks.get_delivery(owed) == owed
    assert (owed.event, owed.url, owed.tries) == ("job.succeeded", closed, 0)
    assert client.webhooks.redeliver(owed).id == owed.id
    deliver(gateway.ledger, owed.id, lambda _: EndpointAnswer(410))
    again = client.webhooks.redeliver(owed.id)
    assert (again.status, again.message) == ("owed", owed.id)
    assert [each.id for each in client.webhooks.deliveries(job=job.id)] == [again.id, owed.id]
    start = owed.created_at
    assert client.webhooks.redeliver_many(start, start + timedelta(seconds=0.001), status="undelivered") == 1
    assert client.webhooks.redeliver_many(start - timedelta(days=2), start - timedelta(days=1)) == 0
    with pytest.raises(NotFound):
        client.webhooks.get_delivery("unknown")


def test_threads_share_a_client(gateway: RunningGateway) -> None:
    study = uuid.uuid4().hex
    with Client(gateway.url) as client, ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: client.jobs.submit(gateway.png(), study=study).id, range(24)))
        assert {job.id for job in client.jobs.list(study=study)} == set(made)
        assert {job.id for job in pool.map(client.jobs.get, made)} == set(made)


def client_of(gateway: RunningGateway) -> Client:
    return Client(gateway.url)


def test_each_refusal_has_its_class(client: Any, gateway: RunningGateway, make: Make) -> None:
    def refused(kind: type[ApiError], type: str, status: int, action: Callable[[], Any]) -> ApiError:
        with pytest.raises(kind) as caught:
            action()
        assert caught.type is kind
        assert (caught.value.type, caught.value.status) == (type, status)
        assert caught.value.detail == str(caught.value)
        return caught.value

    refused(NotFound, "no-such-job", 404, lambda: client.jobs.get(str(uuid.uuid4())))
    refused(NotFound, "not-found", 404, lambda: client.jobs.get("../batches"))
    refused(NotFound, "no-such-job", 404, lambda: next(iter(client.jobs.events("x"))))
    refused(RejectedImage, "not-an-image", 415, lambda: client.jobs.submit(b"no image"))
    refused(RejectedImage, "bad-image", 422, lambda: client.jobs.submit(gateway.png()[:300]))
    refused(RejectedImage, "image-too-large", 413, lambda: client.jobs.submit(bytes(1_000_001)))
    invalid = refused(
        InvalidRequest, "invalid-request", 422, lambda: client.jobs.submit(gateway.png(), priority="urgent")
    )
    assert invalid.errors[0]["where"] == "body.priority"
    key = uuid.uuid4().hex
    client.jobs.submit(gateway.png(), idempotency_key=key)
    refused(
        Conflict,
        "idempotency-conflict",
        409,
        lambda: client.jobs.submit(gateway.png(90, 70), idempotency_key=key),
    )
    strange = make(gateway.url + "/web")
    refused(NotFound, "not-found", 404, lambda: strange.jobs.get("x"))


def test_an_address_that_is_somebody_elses_is_told(make: Make, gateway: RunningGateway) -> None:
    elsewhere = make(f"{gateway.url}/demo.png?")
    with pytest.raises(ApiError, match="Is the address right"):
        elsewhere.jobs.get("x")
    for address in ("localhost:8000", "ftp://x", "http://", "nonsense"):
        with pytest.raises(ValueError, match="address must be like"):
            make(address)
    with pytest.raises(ValueError, match="API key"):
        make(gateway.url, "emx_\nX: y")


def test_nobody_there_is_unavailable(make: Make) -> None:
    with pytest.raises(Unavailable, match="can't be reached") as caught:
        make("http://127.0.0.1:1", retries=0).jobs.get("x")
    assert (caught.value.type, caught.value.status) == ("no-answer", None)


@dataclass
class KeyedGateway(RunningGateway):
    full: str
    submitting: str
    limited: str


@pytest.fixture(scope="module")
def keyed(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory, start_gateway: StartGateway
) -> Iterator[KeyedGateway]:
    folder = tmp_path_factory.mktemp("keyed")
    ring = KeyRing(DirectoryStore(folder))
    with start_gateway(redis_url, folder, EMX_READ_LIMIT="5/minute") as made:
        full, submitting = ring.create("north")[1], ring.create("south", ("submit",))[1]
        yield KeyedGateway(made.client, made.ledger, full, submitting, ring.create("limited")[1])


def test_the_key_is_shown_and_the_settings_are_used(
    make: Make, keyed: KeyedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMX_URL", keyed.url)
    monkeypatch.delenv("EMX_API_KEY", raising=False)
    settings.cache_clear()
    with pytest.raises(Unauthenticated):
        make().jobs.submit(keyed.png())
    with pytest.raises(Forbidden, match="scope 'read'"):
        make(api_key=keyed.submitting).jobs.get("x")
    monkeypatch.setenv("EMX_API_KEY", keyed.full)
    settings.cache_clear()
    assert make().jobs.submit(keyed.png()).state == "queued"
    settings.cache_clear()


def test_who_is_too_quick_is_told_when(make: Make, keyed: KeyedGateway) -> None:
    own = make(keyed.url, keyed.limited, retries=0)
    with pytest.raises(TooManyRequests) as caught:
        for _ in range(10):
            list(own.jobs.list())
    assert caught.value.status == 429 and 0 < (caught.value.retry_after or 0) <= 60


# Retries


def test_a_server_that_fails_first_is_asked_again(
    make: Make, gateway: RunningGateway, bad_connection: BadConnection
) -> None:
    job = gateway.submit(gateway.png()).json()["id"]
    bad_connection.faults = [(503, {"Retry-After": "1"}), (502, {}), "drop", (504, {})]
    began = time.monotonic()
    assert make(bad_connection.url).jobs.get(job).id == job
    assert time.monotonic() - began >= 1
    assert len(bad_connection.seen) == 5


@pytest.mark.parametrize("fault", ["lose", "drop", 40, (503, {}), (429, {"Retry-After": "0"})])
def test_a_submission_sent_again_makes_one_job(
    make: Make, gateway: RunningGateway, bad_connection: BadConnection, fault: Any
) -> None:
    study = uuid.uuid4().hex
    bad_connection.faults = [fault, fault]
    job = make(bad_connection.url).jobs.submit(gateway.png(), study=study)
    assert [found.id for found in client_of(gateway).jobs.list(study=study)] == [job.id]
    keys = {headers["idempotency-key"] for _, _, headers in bad_connection.seen}
    assert len(bad_connection.seen) == 3 and len(keys) == 1


def test_each_submission_has_a_key_of_its_own(client: Any, gateway: RunningGateway) -> None:
    data = gateway.png()
    assert client.jobs.submit(data).id != client.jobs.submit(data).id
    key = uuid.uuid4().hex
    assert client.jobs.submit(data, idempotency_key=key).id == client.jobs.submit(data, idempotency_key=key).id


def test_a_key_that_cannot_be_sent_is_refused_here(client: Any) -> None:
    for key in ("a\nb", "ü", "x" * 256):
        with pytest.raises(InvalidRequest, match="idempotency key"):
            client.batches.create_from_manifest(b"", "text/csv", idempotency_key=key)


def test_a_retry_sent_again_makes_one_batch(
    make: Make, gateway: RunningGateway, bad_connection: BadConnection
) -> None:
    made = client_of(gateway).batches.create_from_manifest(
        b'{"image": "import:nothing"}\n', "application/x-ndjson"
    )
    advance_batch(gateway.ledger, made.id)
    bad_connection.faults = ["lose"]
    again = make(bad_connection.url).batches.retry(made.id)
    assert len(bad_connection.seen) == 2
    listed = gateway.client.get("/v1/batches").json()["items"]
    assert [one["id"] for one in listed if one["retry_of"] == made.id] == [again.id]


def test_a_batch_is_erased(client: Any, gateway: RunningGateway) -> None:
    batch = client.batches.create([gateway.png()])
    client.batches.erase(batch)
    advance_batch(gateway.ledger, batch.id)
    with pytest.raises(NotFound):
        client.batches.get(batch)


def test_what_will_not_change_is_not_asked_again(make: Make, bad_connection: BadConnection) -> None:
    for status in (400, 401, 403, 404, 409, 500, 507):
        bad_connection.seen.clear()
        bad_connection.faults = [(status, {})]
        with pytest.raises(ApiError) as caught:
            make(bad_connection.url).jobs.get("x")
        assert caught.value.status == status
        assert len(bad_connection.seen) == 1


def test_retries_end(make: Make, bad_connection: BadConnection) -> None:
    bad_connection.faults = [(503, {"Retry-After": "0"})] * 9
    with pytest.raises(Unavailable):
        make(bad_connection.url, retries=1).jobs.get("x")
    assert len(bad_connection.seen) == 2
    bad_connection.faults = [(503, {"Retry-After": "3600"})]
    with pytest.raises(Unavailable) as caught:
        make(bad_connection.url).jobs.get("x")
    assert caught.value.retry_after == 3600
    assert len(bad_connection.seen) == 3


def test_retry_after_may_be_a_date(make: Make, bad_connection: BadConnection) -> None:
    bad_connection.faults = [(503, {"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"})]
    with pytest.raises(Unavailable) as caught:
        make(bad_connection.url).jobs.get("x")
    assert (caught.value.retry_after or 0) > 3600


def test_erasing_whose_answer_was_lost_is_erasing(
    make: Make, gateway: RunningGateway, bad_connection: BadConnection
) -> None:
    job = gateway.submit(gateway.png()).json()["id"]
    bad_connection.faults = ["lose"]
    make(bad_connection.url).jobs.erase(job)
    with pytest.raises(NotFound):
        make(bad_connection.url).jobs.erase(job)


def test_cancelling_whose_answer_was_lost_is_cancelling(
    make: Make, gateway: RunningGateway, bad_connection: BadConnection
) -> None:
    job = gateway.submit(gateway.png()).json()["id"]
    bad_connection.faults = ["lose"]
    assert make(bad_connection.url).jobs.cancel(job).state == "cancelled"


def test_events_go_on_where_the_connection_broke(
    make: Make, gateway: RunningGateway, bad_connection: BadConnection
) -> None:
    job = gateway.submit(gateway.png()).json()["id"]
    redis_state = gateway.ledger.redis
    for number in range(4):
        redis_state.live_text.append_text(job, f"{number}" * 20, number * 20)
    gateway.read_by_a_worker(job)
    bad_connection.faults = ["drop", 150, (503, {}), 150, "drop"]
    events = list(make(bad_connection.url).jobs.events(job))
    texts = [event.offset for event in events if isinstance(event, TextWritten)]
    assert texts == [0, 20, 40, 60]
    assert isinstance(events[-1], Ended)
    assert "last-event-id" in bad_connection.seen[-1][2]


def test_listening_goes_on_when_the_server_comes_back(
    make: Make, gateway: RunningGateway, bad_connection: BadConnection
) -> None:
    gateway.client.post("/v1/webhooks/secrets/rotate")
    bad_connection.faults = ["drop", (503, {}), "drop"]
    heard: list[Any] = []
    listener = threading.Thread(
        target=lambda: heard.append(next(iter(make(bad_connection.url, retries=0).webhooks.listen())))
    )
    listener.start()
    while listener.is_alive():
        gateway.read_by_a_worker(gateway.submit(gateway.png()).json()["id"])
        time.sleep(0.1)
    assert heard[0].type == "job.succeeded" and heard[0].headers["webhook-signature"]
    assert len(bad_connection.seen) == 4


def test_events_of_a_server_that_stays_away_end(make: Make, bad_connection: BadConnection) -> None:
    bad_connection.faults = ["drop"] * 9
    with pytest.raises(Unavailable):
        list(make(bad_connection.url, retries=1).jobs.events("x"))
    assert len(bad_connection.seen) == 2


def test_an_upload_url_never_sees_the_key(
    make: Make, bad_connection: BadConnection, gateway: RunningGateway
) -> None:
    own = make(bad_connection.url, "emx_k")
    bad_connection.faults = [(401, {})]
    with pytest.raises(Unauthenticated):
        own.jobs.get("x")
    assert bad_connection.seen[-1][2]["authorization"] == "Bearer emx_k"
    own = make(bad_connection.url)
    upload = own.uploads.create(gateway.png())
    assert own.jobs.submit(upload).state == "queued"
    assert all("authorization" not in headers for _, _, headers in bad_connection.seen[1:])


def test_the_name_of_a_file_is_not_sent(bad_connection: BadConnection, tmp_path: Path) -> None:
    connection = Client(bad_connection.url)._session.connection
    from explainmyxray.client.requests import ApiRequest

    with httpx.Client() as http:
        request = ApiRequest("POST", "/", lambda _: None, files=[("file", forms_of_an_image(tmp_path)["bytes"])])
        body = connection.build(http, request).read()
    assert b"jones" not in body and b'filename="image"' in body


def test_results_go_on_where_the_connection_broke(
    make: Make, gateway: RunningGateway, bad_connection: BadConnection
) -> None:
    batch = client_of(gateway).batches.create([gateway.png() for _ in range(5)], names=list("abcde"))
    advance_batch(gateway.ledger, batch.id)
    items = list(client_of(gateway).batches.items(batch))
    for item in items:
        gateway.read_by_a_worker(item.id)
    advance_batch(gateway.ledger, batch.id)
    bad_connection.faults = ["drop", 2000, (503, {}), 1, 3000]
    results = list(make(bad_connection.url).batches.results(batch))
    assert [(result.row, result.name, result.id) for result in results] == [
        (item.row, item.name, item.id) for item in items
    ]
    assert all(result.report and result.report.impression == "Effusion." for result in results)
    assert len(bad_connection.seen) == 6


def test_results_that_stay_away_end(make: Make, bad_connection: BadConnection) -> None:
    bad_connection.faults = ["drop"] * 9
    with pytest.raises(Unavailable):
        list(make(bad_connection.url, retries=1).batches.results("x"))
    assert len(bad_connection.seen) == 2


def test_a_rotation_whose_answer_was_lost_is_not_repeated(
    make: Make, gateway: RunningGateway, bad_connection: BadConnection
) -> None:
    bad_connection.faults = [(429, {"Retry-After": "0"}), "lose"]
    with pytest.raises(Unavailable):
        make(bad_connection.url).webhooks.rotate_secret()
    assert len(bad_connection.seen) == 2
    assert make(bad_connection.url).webhooks.rotate_secret().secret.startswith("whsec_")


# What needs no server


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_events_are_parsed_however_they_are_cut(cut: int) -> None:
    stream = (
        b": hello\r\n\r\nevent: text\r\nid: 1\r\ndata: a\r\ndata:b\r\n\r\n"
        b"data: \xe2\x80\xa8second\n\nid: 2\rdata: third\r\rid\nevent: nothing\n\ndata: unfinished\n"
    )
    parser = EventParser()
    found = [told for at in range(0, len(stream), cut) for told in parser.feed(stream[at : at + cut])]
    assert [(told.event, told.data, told.id) for told in found] == [
        ("text", "a\nb", "1"),
        ("message", "\u2028second", "1"),
        ("message", "third", "2"),
    ]


def test_a_newer_server_may_tell_more(gateway: RunningGateway) -> None:
    from explainmyxray.client.resources import read_json

    job = gateway.submit(gateway.png()).json()["id"]
    start(gateway.ledger, job, "t")
    gateway.ledger.redis.leases.release(job, "t")
    gateway.read_by_a_worker(job)
    told = gateway.client.get(f"/v1/jobs/{job}").json()
    told |= {"weather": "fine", "state": "archived"}
    told["report"]["confidence"] = 1
    told["report"]["locations"][0]["box"]["depth"] = 3
    import json

    read = read_json(Job, json.dumps(told).encode())
    assert read.state == "archived" and read.report and read.report.locations[0].box.xmin == 40


def test_the_client_needs_no_torch_and_no_fastapi() -> None:
    code = (
        "import sys; from explainmyxray import Client, AsyncClient, verify_webhook;"
        "print([m for m in ('torch','transformers','fastapi','starlette','redis','celery') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_batchs_results_are_resumed_after_a_cut_and_by_another_program(
    make: Make, gateway: RunningGateway, bad_connection: BadConnection
) -> None:
    batch = client_of(gateway).batches.create([gateway.png() for _ in range(5)], names=list("abcde"))
    advance_batch(gateway.ledger, batch.id)
    for item in list(client_of(gateway).batches.items(batch)):
        gateway.read_by_a_worker(item.id)
    advance_batch(gateway.ledger, batch.id)
    bad_connection.faults[:] = [3000]
    results = list(make(bad_connection.url).batches.results(batch))
    assert sorted(result.name for result in results) == list("abcde")
    assert "after=" not in bad_connection.seen[0][1] and "after=" in bad_connection.seen[1][1]
    later = f"{int(results[-1].cursor.partition('-')[0]) + 60_000_000}-4"
    assert list(make(gateway.url).batches.results(batch, after=later)) == []


def test_an_items_job_has_its_row_and_name(client: Any, gateway: RunningGateway) -> None:
    batch = client.batches.create([gateway.png()], names=["ward/a.png"])
    assert (batch.state, batch.without_report) == ("running", 0)
    advance_batch(gateway.ledger, batch.id)
    (item,) = client.batches.items(batch)
    job = client.jobs.get(item.id)
    assert (job.batch, job.row, job.name) == (batch.id, 0, "ward/a.png")
    gateway.read_by_a_worker(item.id)
    advance_batch(gateway.ledger, batch.id)
    assert client.batches.get(batch).state == "completed"


def test_an_upload_is_prepared_once_and_sent_when_its_batch_exists(client: Any, gateway: RunningGateway) -> None:
    key = uuid.uuid4().hex
    upload = client.uploads.prepare(key)
    manifest = f"image,name\nupload:{upload.id},one\nupload:{upload.id},two\n".encode()
    batch = client.batches.create_from_manifest(manifest, "text/csv", paused=True)
    assert batch.state == "paused"
    assert not client.uploads.prepare(key).received
    assert client.uploads.send(client.uploads.prepare(key), gateway.png()).id == upload.id
    assert client.uploads.prepare(key).received
    client.batches.resume(batch)
    advance_batch(gateway.ledger, batch.id)
    assert {item.state for item in client.batches.items(batch)} == {"queued"}
