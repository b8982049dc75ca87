"""Readers' feedback over HTTP: each rule of its contract, and what may be had of it."""

import csv
import io
import json
import uuid
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from pycocotools.coco import COCO
from pypdf import PdfReader

from emx_shared.api_keys import KeyRing
from emx_shared.contracts.box_table import patient_digest
from emx_shared.contracts.findings import BY_LABEL, FINDINGS
from emx_shared.ledger import MOST_VERSIONS, object_keys
from emx_shared.ledger.jobs.erasure import announce_erasure
from emx_shared.ledger.records import Feedback, tombstone_of
from emx_shared.store.directory import DirectoryStore
from emx_training.finetune.examples import read_boxes
from support.gateway import RunningGateway, StartGateway

BOX = {"xmin": 40, "ymin": 30, "xmax": 70, "ymax": 55}
"""Of the only location of every report here, on an image of 80 × 60 pixels."""

MOVED = {"xmin": 8, "ymin": 6, "xmax": 80, "ymax": 60}
AGREED: dict[str, Any] = {"of": 0, "verdict": "agreed"}
REJECTED: dict[str, Any] = {"of": 0, "verdict": "rejected"}
CORRECTED: dict[str, Any] = {
    "of": 0,
    "verdict": "corrected",
    "label": "pleural effusion",
    "laterality": "right",
    "box": MOVED,
}
ADDED: dict[str, Any] = {"of": None, "verdict": "added", "label": "cardiomegaly", "box": MOVED}


@pytest.fixture
def own(redis_url: str, tmp_path: Path, start_gateway: StartGateway) -> Iterator[RunningGateway]:
    """A gateway on a store of its own, where nothing was reviewed yet."""
    with start_gateway(redis_url, tmp_path / "store") as made:
        yield made


def read_job(gateway: RunningGateway, **fields: str) -> str:
    job = str(gateway.submit(gateway.png(), **fields).json()["id"])
    gateway.read_by_a_worker(job)
    return job


@pytest.fixture
def job(gateway: RunningGateway) -> str:
    return read_job(gateway)


def body(*locations: dict[str, Any], verdict: str = "agree", **more: Any) -> dict[str, Any]:
    return {"reviewer": "AB", "verdict": verdict, "locations": list(locations), **more}


def send(gateway: RunningGateway, job: str, *locations: dict[str, Any], **more: Any) -> httpx.Response:
    return gateway.client.post(f"/v1/jobs/{job}/feedback", json=body(*locations, **more))


def accepted(gateway: RunningGateway, job: str, *locations: dict[str, Any], **more: Any) -> Any:
    answer = send(gateway, job, *locations, **more)
    assert answer.status_code == 201, answer.text
    return answer.json()


def items(gateway: RunningGateway, job: str) -> list[Any]:
    found: list[Any] = gateway.client.get(f"/v1/jobs/{job}/feedback").json()["items"]
    return found


def test_feedback_is_answered_with_what_the_report_and_the_vocabulary_say(
    gateway: RunningGateway, job: str
) -> None:
    before = gateway.client.get(f"/v1/jobs/{job}/report.json").content
    answer = accepted(gateway, job, CORRECTED, ADDED, comment="Higher.", verdict="disagree")
    assert list(answer) == ["job", "version", "reviewed_at", "reviewer", "verdict", "comment", "locations"]
    assert (answer["job"], answer["version"], answer["reviewer"]) == (job, 1, "AB")
    assert (answer["verdict"], answer["comment"]) == ("disagree", "Higher.")
    assert answer["reviewed_at"].endswith("Z")
    effusion, heart = BY_LABEL["pleural effusion"], BY_LABEL["cardiomegaly"]
    fractions = {"xmin": 0.1, "ymin": 0.1, "xmax": 1, "ymax": 1}
    assert answer["locations"] == [
        {**CORRECTED, "code": "pleural_effusion", "box_normalised": fractions, "colour": effusion.colour},
        {**ADDED, "laterality": None, "code": "cardiomegaly", "box_normalised": fractions, "colour": heart.colour},
    ]
    assert items(gateway, job) == [answer]
    assert gateway.client.get(f"/v1/jobs/{job}/report.json").content == before


@pytest.mark.parametrize("verdict", ["agreed", "rejected"])
@pytest.mark.parametrize(
    "repeated",
    [
        {},
        {"label": None, "laterality": None, "box": None},
        {"label": "pleural effusion", "laterality": "left", "box": BOX},
        {"box": BOX},
        {"laterality": "left"},
    ],
)
def test_what_is_agreed_or_rejected_is_the_reports(
    gateway: RunningGateway, job: str, verdict: str, repeated: dict[str, Any]
) -> None:
    (place,) = accepted(gateway, job, {"of": 0, "verdict": verdict, **repeated})["locations"]
    (reported,) = gateway.client.get(f"/v1/jobs/{job}/report.json").json()["locations"]
    same = ("label", "code", "laterality", "box", "box_normalised", "colour")
    assert place == {"of": 0, "verdict": verdict, **{name: reported[name] for name in same}}


def with_box(**corners: Any) -> dict[str, Any]:
    return ADDED | {"box": MOVED | corners}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no reviewer": (body(reviewer=""), "body.reviewer"),
    "a long reviewer": (body(reviewer="ABCDEFGHI"), "body.reviewer"),
    "a reviewer's name": (body(reviewer="J. Doe"), "body.reviewer"),
    "two lines of reviewer": (body(reviewer="AB\n"), "body.reviewer"),
    "a verdict": (body(verdict="agreed"), "body.verdict"),
    "a long comment": (body(comment="x" * 2001), "body.comment"),
    "half a character": (body(comment="\ud800"), "body.comment"),
    "a negative version": (body(after=-1), "body.after"),
    "a version in words": (body(after="0"), "body.after"),
    "another field": (body(name="Jane"), "body.name"),
    "another field of a location": (body({**AGREED, "evidence": "x"}), "body.locations.0.evidence"),
    "without of": (body({"verdict": "agreed"}), "body.locations.0.of"),
    "no such location": (body({"of": 1, "verdict": "agreed"}), "body.locations.0.of"),
    "a negative location": (body({"of": -1, "verdict": "agreed"}), "body.locations.0.of"),
    "true for a location": (body({"of": True, "verdict": "agreed"}), "body.locations.0.of"),
    "an added one of the report": (body({**ADDED, "of": 0}), "body.locations.0.of"),
    "none to agree with": (body({"of": None, "verdict": "agreed"}), "body.locations.0.of"),
    "one twice": (body(AGREED, REJECTED), "body.locations.1.of"),
    "one corrected twice": (body(CORRECTED, CORRECTED), "body.locations.1.of"),
    "51 locations": (body(*[ADDED] * 51), "body.locations"),
    "a verdict of a location": (body({"of": 0, "verdict": "agree"}), "body.locations.0.verdict"),
    "agreed, with another label": (body({**AGREED, "label": "mass"}), "body.locations.0.label"),
    "agreed, with another side": (body({**AGREED, "laterality": "right"}), "body.locations.0.laterality"),
    "agreed, without the side": (
        body({**AGREED, "label": "pleural effusion", "laterality": None}),
        "body.locations.0.laterality",
    ),
    "rejected, with another box": (body({**REJECTED, "box": MOVED}), "body.locations.0.box"),
    "an unknown label": (body({**ADDED, "label": "gout"}), "body.locations.0.label"),
    "a synonym": (body({**ADDED, "label": "enlarged heart"}), "body.locations.0.label"),
    "no label": (body({**ADDED, "label": None}), "body.locations.0.label"),
    "no side": (body({**CORRECTED, "laterality": None}), "body.locations.0.laterality"),
    "a side of the heart": (body({**ADDED, "laterality": "left"}), "body.locations.0.laterality"),
    "both sides": (body({**CORRECTED, "laterality": "both"}), "body.locations.0.laterality"),
    "no box": (body({**ADDED, "box": None}), "body.locations.0.box"),
    "left of the image": (body(with_box(xmin=-0.5)), "body.locations.0.box"),
    "right of the image": (body(with_box(xmax=80.01)), "body.locations.0.box"),
    "above the image": (body(with_box(ymin=-1)), "body.locations.0.box"),
    "below the image": (body(with_box(ymax=60.5)), "body.locations.0.box"),
    "a line": (body(with_box(xmin=80)), "body.locations.0.box"),
    "upside down": (body(with_box(ymin=50, ymax=20)), "body.locations.0.box"),
    "infinite": (body(with_box(xmax=float("inf"))), "body.locations.0.box.xmax"),
    "no number": (body(with_box(xmin=float("nan"))), "body.locations.0.box.xmin"),
    "a number in words": (body(with_box(xmin="8")), "body.locations.0.box.xmin"),
    "three corners": (body(ADDED | {"box": {"xmin": 1, "ymin": 1, "xmax": 2}}), "body.locations.0.box.ymax"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_does_not_fit_is_refused_and_named(gateway: RunningGateway, job: str, why: str) -> None:
    sent, where = REFUSED[why]
    answer = gateway.client.post(f"/v1/jobs/{job}/feedback", content=json.dumps(sent))
    gateway.problem(answer, 422, "invalid-request")
    assert where in [error["where"] for error in answer.json()["errors"]]
    assert items(gateway, job) == []
    for given in ("gout", "Jane", "enlarged heart"):
        assert given not in answer.text.replace("body.name", "")


def test_what_is_at_the_limits_is_accepted(gateway: RunningGateway, job: str) -> None:
    edge = with_box(xmin=0, ymin=0, xmax=80, ymax=60)
    answer = accepted(gateway, job, *[edge] * 50, comment="x" * 2000, reviewer="Abcdef12")
    assert len(answer["locations"]) == 50


def test_a_reader_who_is_second_is_told_which_version_is_the_newest(gateway: RunningGateway, job: str) -> None:
    first = accepted(gateway, job, AGREED)
    for after in (0, 2):
        answer = send(gateway, job, REJECTED, after=after)
        gateway.problem(answer, 409, "feedback-conflict")
        assert '"after": 1' in answer.json()["detail"]
    second = accepted(gateway, job, REJECTED, after=1, verdict="disagree", reviewer="CD")
    assert second["version"] == 2
    assert items(gateway, job) == [first, second]
    found = gateway.client.get(f"/v1/jobs/{job}").json()["feedback"]
    assert found == {name: second[name] for name in ("version", "reviewed_at", "reviewer", "verdict")}


def test_of_readers_at_once_none_is_lost(gateway: RunningGateway, job: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: send(gateway, job, AGREED, reviewer=f"R{n}"), range(8)))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [201] + [409] * 7
    assert items(gateway, job) == [answer.json() for answer in answers if answer.status_code == 201]


def test_a_job_has_at_most_so_many_versions(gateway: RunningGateway, job: str) -> None:
    accepted(gateway, job, AGREED)
    stored = gateway.ledger.feedback(job)
    assert stored and stored.newest
    many = [stored.newest.model_copy(update={"version": n + 1}) for n in range(MOST_VERSIONS - 1)]
    gateway.ledger.store.put(object_keys.feedback(job), Feedback(versions=tuple(many)).dump())
    assert accepted(gateway, job, AGREED, after=MOST_VERSIONS - 1)["version"] == MOST_VERSIONS
    gateway.problem(send(gateway, job, AGREED, after=MOST_VERSIONS), 409, "too-many-versions")
    gateway.problem(send(gateway, job, AGREED), 409, "feedback-conflict")


def test_a_job_without_report_takes_none(gateway: RunningGateway) -> None:
    waiting = gateway.submit(gateway.png()).json()["id"]
    gateway.problem(send(gateway, waiting), 409, "no-report")
    assert items(gateway, waiting) == []
    gateway.client.post(f"/v1/jobs/{waiting}/cancel")
    gateway.problem(send(gateway, waiting), 409, "no-report")


def test_an_unknown_job_has_none(gateway: RunningGateway) -> None:
    for id in (str(uuid.uuid4()), "x"):
        gateway.problem(send(gateway, id), 404, "no-such-job")
        gateway.problem(gateway.client.get(f"/v1/jobs/{id}/feedback"), 404, "no-such-job")


def test_what_is_no_json_is_refused(gateway: RunningGateway, job: str) -> None:
    gateway.problem(gateway.client.post(f"/v1/jobs/{job}/feedback", content=b"{"), 400, "not-json")
    gateway.problem(gateway.client.post(f"/v1/jobs/{job}/feedback", content=b"[]"), 422, "invalid-request")
    long = json.dumps(body(comment="x" * 300_000)).encode()
    gateway.problem(gateway.client.post(f"/v1/jobs/{job}/feedback", content=long), 413, "body-too-large")


def test_an_erasure_takes_feedback_with_it_and_lets_none_in(gateway: RunningGateway) -> None:
    kept, erased, being = (read_job(gateway, patient="P-feedback") for _ in range(3))
    for job in (kept, erased):
        accepted(gateway, job, AGREED)
    record = gateway.ledger.job(being)
    assert record
    announce_erasure(gateway.ledger, tombstone_of(record))
    gateway.problem(send(gateway, being, AGREED), 409, "erased")
    assert gateway.client.delete(f"/v1/jobs/{erased}").status_code == 204
    gateway.problem(send(gateway, erased, AGREED), 404, "no-such-job")
    gateway.problem(gateway.client.get(f"/v1/jobs/{erased}/feedback"), 404, "no-such-job")
    listed = [item["job"] for item in all_of(gateway)]
    assert kept in listed and not {erased, being} & set(listed)
    with zipfile.ZipFile(
        io.BytesIO(gateway.client.get("/v1/export", params={"patient": "P-feedback"}).content)
    ) as file:
        names = [name for name in file.namelist() if "feedback" in name]
        assert names == [f"jobs/{kept}/feedback.json"]
        assert json.loads(file.read(names[0]))["versions"][0]["reviewer"] == "AB"
    assert gateway.client.delete("/v1/jobs", params={"patient": "P-feedback"}).status_code == 200
    store = gateway.ledger.store
    for job in (kept, erased, being):
        for key in (object_keys.feedback(job), object_keys.feedback_marker("default", job)):
            assert not store.exists(key)


def all_of(gateway: RunningGateway, **filters: Any) -> list[Any]:
    found, cursor = [], None
    while True:
        params = filters | ({"cursor": cursor} if cursor else {})
        page = gateway.client.get("/v1/feedback", params=params).json()
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def test_the_newest_of_each_job_are_listed_page_by_page(own: RunningGateway) -> None:
    jobs = sorted(read_job(own) for _ in range(5))
    for job in jobs:
        accepted(own, job, AGREED)
    newest = accepted(own, jobs[2], REJECTED, ADDED, verdict="disagree", after=1)
    own.ledger.store.put(object_keys.feedback_marker("default", str(uuid.uuid4())), b"")
    silent = read_job(own)
    own.ledger.store.put(object_keys.feedback_marker("default", silent), b"")  # of a writer that died
    own.ledger.store.put(object_keys.feedback(silent), Feedback().dump())
    for limit in (1, 2, 5, 100):
        found = all_of(own, limit=limit)
        assert [item["job"] for item in found] == jobs
        assert found[2] == newest
    page = own.client.get("/v1/feedback", params={"limit": 2})
    assert list(page.json()) == ["items", "unreadable", "next_cursor"]
    assert f"cursor={page.json()['next_cursor']}" in page.headers["link"]
    assert [item["job"] for item in all_of(own, verdict="disagree")] == [jobs[2]]
    assert [item["job"] for item in all_of(own, label="cardiomegaly")] == [jobs[2]]
    assert len(all_of(own, label="pleural effusion")) == 5
    assert all_of(own, label="pleural effusion", verdict="agree", limit=1)[0]["job"] == jobs[0]
    own.problem(own.client.get("/v1/feedback", params={"label": "gout"}), 422, "invalid-request")
    own.problem(own.client.get("/v1/feedback", params={"cursor": "x"}), 400, "bad-cursor")
    assert [job["feedback"] for job in own.client.get("/v1/jobs").json()["items"]] == [None] * 6


def test_feedback_that_cannot_be_read_stops_nothing_else(own: RunningGateway) -> None:
    damaged, fine = read_job(own), read_job(own)
    for job in (damaged, fine):
        accepted(own, job, AGREED)
    own.ledger.store.put(object_keys.feedback(damaged), b'{"format": "2.0", "versions": 3}')
    page = own.client.get("/v1/feedback").json()
    assert ([item["job"] for item in page["items"]], page["unreadable"]) == ([fine], [damaged])
    assert fine in own.client.get("/v1/feedback.csv").text
    shown = own.client.get(f"/v1/jobs/{damaged}").json()
    assert shown["feedback"] is None and shown["report"]
    assert "Reviewed" not in own.client.get(f"/v1/jobs/{damaged}/report.txt").text
    own.problem(own.client.get(f"/v1/jobs/{damaged}/feedback"), 503, "unreadable-record")
    own.problem(send(own, damaged, AGREED, after=1), 503, "unreadable-record")


def test_agreement_is_counted_by_the_newest_versions(own: RunningGateway) -> None:
    nothing = {"jobs": 0, "agree": 0, "disagree": 0, "findings": []}
    assert own.client.get("/v1/feedback/agreement").json() == nothing
    one, two, three = (read_job(own) for _ in range(3))
    accepted(own, one, REJECTED, verdict="disagree")
    accepted(own, one, AGREED, ADDED, after=1)
    accepted(own, two, {**CORRECTED, "label": "mass"}, verdict="disagree")
    accepted(own, three)
    none = {"agreed": 0, "corrected": 0, "rejected": 0, "added": 0}
    assert own.client.get("/v1/feedback/agreement").json() == {
        "jobs": 3,
        "agree": 2,
        "disagree": 1,
        "findings": [
            none | {"label": "cardiomegaly", "added": 1},
            none | {"label": "pleural effusion", "agreed": 1, "corrected": 1},  # by what the report has
        ],
    }


def rows_of(gateway: RunningGateway) -> dict[str, list[dict[str, str]]]:
    answer = gateway.client.get("/v1/feedback.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    reader = csv.DictReader(io.StringIO(answer.text))
    assert reader.fieldnames == ["image", "term", "xmin", "ymin", "xmax", "ymax", "patient"]
    found: dict[str, list[dict[str, str]]] = {}
    for row in reader:
        found.setdefault(row["image"], []).append(row)
    return found


def cells(rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
    return [tuple(value for name, value in row.items() if name not in ("image", "patient")) for row in rows]


EXPORTED: dict[str, tuple[dict[str, Any], list[tuple[str, ...]] | None]] = {
    "agreed": (body(AGREED), [("pleural effusion left", "0.5", "0.5", "0.875", str(55 / 60))]),
    "corrected": (
        body(CORRECTED, verdict="disagree"),
        [("pleural effusion right", "0.1", "0.1", "1.0", "1.0")],
    ),
    "rejected and added": (
        body(REJECTED, ADDED, verdict="disagree"),
        [("cardiomegaly", "0.1", "0.1", "1.0", "1.0")],
    ),
    "normal": (body(REJECTED, verdict="disagree"), [("", "", "", "", "")]),
    "incomplete": (
        body(ADDED),
        [("cardiomegaly", "0.1", "0.1", "1.0", "1.0"), ("pleural effusion", "", "", "", "")],
    ),
    "nothing reviewed": (body(), None),
    "16 boxes": (body(AGREED, *[ADDED] * 15), [()] * 16),
    "more boxes than a report holds": (body(AGREED, *[ADDED] * 16), None),
    "disagreed without a correction": (
        body(AGREED, verdict="disagree"),
        [("pleural effusion left", "0.5", "0.5", "0.875", str(55 / 60)), ("other", "", "", "", "")],
    ),
}
"""Feedback, and the rows that it makes: term and corners. None where the image is left out."""


@pytest.fixture
def reviewed(own: RunningGateway) -> dict[str, str]:
    """The job of each kind of feedback above."""
    jobs = {}
    for kind, (sent, _) in EXPORTED.items():
        jobs[kind] = read_job(own, **({"patient": "P-0017"} if kind == "agreed" else {}))
        answer = own.client.post(f"/v1/jobs/{jobs[kind]}/feedback", json=sent)
        assert answer.status_code == 201
    return jobs


def test_the_table_has_a_row_for_each_box_and_says_what_nobody_knows(
    own: RunningGateway, reviewed: dict[str, str], tmp_path: Path
) -> None:
    rows = rows_of(own)
    assert len(rows) == sum(expected is not None for _, expected in EXPORTED.values())
    for kind, (_, expected) in EXPORTED.items():
        found = rows.get(f"{reviewed[kind]}.png")
        assert (found is None) == (expected is None), kind
        if found and expected and expected[0]:
            assert cells(found) == expected, kind
        elif found and expected:
            assert len(found) == len(expected)
    patients = {name: {row["patient"] for row in some} for name, some in rows.items()}
    assert patients.pop(f"{reviewed['agreed']}.png") == {patient_digest("P-0017")}
    assert all(each == {""} for each in patients.values())
    (tmp_path / "boxes.csv").write_text(own.client.get("/v1/feedback.csv").text)
    for name in rows:
        (tmp_path / name).write_bytes(own.png())
    examples = {example.image.name: example for example in read_boxes(tmp_path / "boxes.csv", tmp_path)}
    assert examples.keys() == rows.keys()
    text = {kind: str(examples.get(f"{job}.png")) for kind, job in reviewed.items()}
    assert "LOCATIONS:', False), (' none" in text["normal"]
    assert "pleural effusion left <loc0512>" in text["agreed"]
    assert "clear" not in text["incomplete"] and "pleural effusion" not in text["incomplete"]


def test_coco_has_the_same_boxes_in_pixels(own: RunningGateway, reviewed: dict[str, str], tmp_path: Path) -> None:
    document = own.client.get("/v1/feedback.coco.json").json()
    (tmp_path / "coco.json").write_text(json.dumps(document))
    coco = COCO(str(tmp_path / "coco.json"))
    by_name = {image["file_name"]: image for image in coco.loadImgs(coco.getImgIds())}
    rows = rows_of(own)
    assert by_name.keys() == rows.keys()
    assert all((image["width"], image["height"]) == (80, 60) for image in by_name.values())
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == [finding.label for finding in FINDINGS]
    for name, image in by_name.items():
        boxes = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        assert len(boxes) == sum(bool(row["xmin"]) for row in rows[name])
    (agreed,) = coco.loadAnns(coco.getAnnIds(imgIds=[by_name[f"{reviewed['agreed']}.png"]["id"]]))
    assert (agreed["bbox"], agreed["area"], agreed["laterality"]) == ([40, 30, 30, 25], 750, "left")
    assert coco.loadCats(agreed["category_id"])[0]["name"] == "pleural effusion"
    effusion = coco.getCatIds(catNms=["pleural effusion"])
    unknown = {
        kind: by_name[f"{reviewed[kind]}.png"]["not_exhaustive_category_ids"] for kind in ("agreed", "normal")
    }
    assert unknown == {"agreed": [], "normal": []}
    assert by_name[f"{reviewed['incomplete']}.png"]["not_exhaustive_category_ids"] == effusion
    doubted = by_name[f"{reviewed['disagreed without a correction']}.png"]
    assert len(doubted["not_exhaustive_category_ids"]) == len(FINDINGS)


def test_another_tenants_feedback_is_neither_shown_nor_counted(
    redis_url: str, tmp_path: Path, start_gateway: StartGateway
) -> None:
    ring = KeyRing(DirectoryStore(tmp_path / "store"))
    keys = {name: ring.create(name)[1] for name in ("north", "south")}
    keys["reader"] = ring.create("north", ("read",))[1]
    keys["sender"] = ring.create("north", ("submit",))[1]
    with start_gateway(redis_url, tmp_path / "store") as gateway:

        def ask(key: str, method: str, path: str, **more: Any) -> httpx.Response:
            headers = {"Authorization": f"Bearer {keys[key]}"}
            return gateway.client.request(method, path, headers=headers, **more)

        job = ask("north", "POST", "/v1/jobs", files={"file": gateway.png()}).json()["id"]
        gateway.read_by_a_worker(job)
        place = f"/v1/jobs/{job}/feedback"
        gateway.problem(ask("reader", "POST", place, json=body(AGREED)), 403, "out-of-scope")
        assert ask("sender", "POST", place, json=body(AGREED, comment="Mrs Jones")).status_code == 201
        assert ask("reader", "GET", place).status_code == 200
        for path in (
            place,
            "/v1/feedback",
            "/v1/feedback.csv",
            "/v1/feedback.coco.json",
            "/v1/feedback/agreement",
        ):
            gateway.problem(ask("sender", "GET", path), 403, "out-of-scope")
        for method, sent in (("GET", {}), ("POST", {"json": body(AGREED, after=1)})):
            gateway.problem(ask("south", method, place, **sent), 404, "no-such-job")
        assert ask("south", "GET", "/v1/feedback").json()["items"] == []
        assert job not in ask("south", "GET", "/v1/feedback.csv").text
        assert ask("south", "GET", "/v1/feedback.coco.json").json()["images"] == []
        assert ask("south", "GET", "/v1/feedback/agreement").json()["jobs"] == 0
        assert ask("north", "GET", "/v1/feedback").json()["items"][0]["job"] == job
        ask("north", "POST", place, json=body(AGREED, after=7))
        metrics = gateway.client.get("/metrics").text
        assert "emx_" in metrics
    log = (tmp_path / "audit.jsonl").read_text()
    lines = [(line["action"], line["subject"]) for line in map(json.loads, log.splitlines())]
    assert lines.count(("feedback.write", job)) == 2 and ("feedback.read", job) in lines
    assert lines.count(("feedback.read", "all")) >= 5
    assert ("refused", "feedback-conflict") in lines
    for word in ("Jones", '"AB"', "effusion"):
        assert word not in log + metrics


KINDS = ("txt", "html", "pdf")


def told(gateway: RunningGateway, job: str, kind: str) -> str:
    answer = gateway.client.get(f"/v1/jobs/{job}/report.{kind}")
    assert answer.status_code == 200
    if kind != "pdf":
        return answer.text
    return " ".join(" ".join(page.extract_text() for page in PdfReader(io.BytesIO(answer.content)).pages).split())


@pytest.mark.parametrize("kind", KINDS)
def test_a_rendering_says_what_the_newest_reader_said(gateway: RunningGateway, job: str, kind: str) -> None:
    assert "Reviewed by" not in told(gateway, job, kind)
    address = f"/v1/jobs/{job}/report.{kind}"
    tags = [gateway.client.get(address).headers["etag"]]
    for after, (sent, said) in enumerate(
        [
            (body(AGREED), "agrees; 1 finding agreed."),
            (
                body(REJECTED, ADDED, ADDED, verdict="disagree", comment="<b>No</b> & no."),
                "disagrees; 1 finding rejected, 2 added. Comment: <b>No</b> & no.",
            ),
            (body(), "agrees."),
            (body(), "agrees."),
        ]
    ):
        assert gateway.client.get(address, headers={"If-None-Match": tags[-1]}).status_code == 304
        answer = gateway.client.post(f"/v1/jobs/{job}/feedback", json={**sent, "after": after})
        date = answer.json()["reviewed_at"][:10]
        text = told(gateway, job, kind)
        if kind == "html":
            said = said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert f"Reviewed by AB on {date}: {said}" in text
        assert text.count("Reviewed by") == 1
        changed = gateway.client.get(address, headers={"If-None-Match": tags[-1]})
        assert changed.status_code == 200
        tags.append(changed.headers["etag"])
    assert len(set(tags)) == 5


def test_a_form_that_says_nothing_of_readers_stays_the_same(gateway: RunningGateway, job: str) -> None:
    names = ("report.json", "overlay.png", "image.png")
    before = [gateway.client.get(f"/v1/jobs/{job}/{name}").headers["etag"] for name in names]
    accepted(gateway, job, AGREED)
    assert [gateway.client.get(f"/v1/jobs/{job}/{name}").headers["etag"] for name in names] == before
