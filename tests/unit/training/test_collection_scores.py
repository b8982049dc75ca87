"""Scores on a table of a collection: what can't be known isn't 0, and a patient's images are drawn together."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emx_shared.contracts.box_table import BOX_COLUMNS
from emx_shared.grammar import ReportText, parse
from emx_training.data.tables import BadTable, write_table
from emx_training.evaluate.collection_scores import JudgedImage, judged, score_images
from emx_training.evaluate.entailment import EntailedSentences, Judge, JudgeFailed
from emx_training.evaluate.intervals import bootstrap
from emx_training.evaluate.predictions import Prediction
from emx_training.evaluate.true_reports import TrueTable, read_true_reports

EFFUSION = "FINDINGS: There is a left pleural effusion.\nLOCATIONS: none\nIMPRESSION: Left pleural effusion."
NORMAL = "FINDINGS: The lungs are clear.\nLOCATIONS: none\nIMPRESSION: No acute abnormality."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "c.png"):
        Image.new("L", (40, 40), 90).save(tmp_path / name)
    rows = [
        ("a.png", "There is a left pleural effusion.", "Left pleural effusion.", "pleural effusion left", "p1"),
        ("b.png", "The lungs are clear.", "No acute abnormality.", "", "p1"),
        ("c.png", "There is consolidation.", "Consolidation.", "consolidation right;pneumonia right", "p2"),
    ]
    write_table(tmp_path / "test.csv", ("image", "findings", "impression", "terms", "patient"), rows)
    write_table(tmp_path / "plain.csv", ("image", "findings", "impression"), [row[:3] for row in rows])
    boxes = [("a.png", "pleural effusion left", 0.5, 0.5, 0.9, 0.9), ("b.png", "", "", "", "", "")]
    write_table(tmp_path / "boxes.csv", BOX_COLUMNS, boxes)
    return tmp_path


def answered(table: TrueTable, *texts: str, judge: Judge | None = None) -> list[JudgedImage]:
    return [
        judged(one, Prediction(id=one.name, truth=str(one.report), prediction=text), judge)
        for one, text in zip(table.reports, texts, strict=True)
    ]


def test_findings_come_from_the_terms_the_text_or_the_boxes(folder: Path) -> None:
    terms, text, boxes = (
        read_true_reports(folder / name, folder) for name in ("test.csv", "plain.csv", "boxes.csv")
    )
    assert (terms.labels_from, text.labels_from, boxes.labels_from) == ("terms", "text", "boxes")
    assert [set(one.labels) for one in terms.reports] == [
        {"pleural effusion"}, set(), {"consolidation", "pneumonia"},
    ]  # fmt: skip
    assert [set(one.labels) for one in text.reports] == [{"pleural effusion"}, set(), {"consolidation"}]
    assert [set(one.labels) for one in boxes.reports] == [{"pleural effusion"}, set()]
    assert [one.patient for one in terms.reports] == ["p1", "p1", "p2"]
    assert {one.patient for one in (*text.reports, *boxes.reports)} == {None}


def test_a_term_outside_the_vocabulary_is_refused(folder: Path) -> None:
    table = folder / "test.csv"
    table.write_text(table.read_text().replace("pneumonia right", "gremlin right"))
    with pytest.raises(BadTable, match=r"gremlin right.*vocabulary"):
        read_true_reports(table, folder)


def test_a_table_of_text_has_no_figures_of_boxes_and_says_so(folder: Path) -> None:
    table = read_true_reports(folder / "test.csv", folder)
    scores = score_images(table, answered(table, EFFUSION, NORMAL, NORMAL))
    for name in ("mean_iou", "map50", "micro_f1", "radgraph_f1", "entailment_f1", "calibration_error"):
        assert name not in scores.figures
        assert scores.absent[name]
    assert scores.calibration_error is None
    assert scores.figures["text_label_f1"] == pytest.approx(2 / (2 + 2))
    assert scores.figures["location_label_f1"] == 0
    assert 0 < scores.figures["bleu"] < 1
    assert (scores.images, scores.patients) == (3, 2)
    assert scores.intervals.keys() == scores.figures.keys()


def test_a_table_of_boxes_has_no_figures_of_text(folder: Path) -> None:
    table = read_true_reports(folder / "boxes.csv", folder)
    right = [str(one.report) for one in table.reports]
    scores = score_images(table, answered(table, *right))
    assert {"bleu", "rouge_l"} <= scores.absent.keys()
    for name in ("mean_iou", "map50", "micro_f1", "text_label_f1", "location_label_f1"):
        assert scores.figures[name] == 1
    assert scores.patients is None


def test_an_answer_that_breaks_the_grammar_states_nothing(folder: Path) -> None:
    table = read_true_reports(folder / "test.csv", folder)
    scores = score_images(table, answered(table, "Pleural effusion", NORMAL, NORMAL))
    assert scores.figures["text_label_f1"] == 0
    assert scores.figures["parse_rate"] == pytest.approx(2 / 3)


def test_intervals_are_wider_where_a_patient_has_many_images_alike() -> None:
    values = np.repeat([0.0, 1.0] * 10, 10)
    figures = {"mean": lambda weights: weights @ values / weights.sum(axis=1)}
    patients = [f"p{index // 10}" for index in range(len(values))]

    def width(patients: list[str] | None) -> float:
        low, high = bootstrap(figures, len(values), patients=patients)["mean"]
        return high - low

    assert width(patients) > 2.5 * width(None)
    assert width([f"p{index}" for index in range(len(values))]) == pytest.approx(width(None), rel=0.1)


class _JudgeServer(BaseHTTPRequestHandler):
    """Says yes where the sentence is in the report, to the letter; or else what the test wants."""

    answer: str | None = None
    status = 200
    asked = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][0]["content"]
        report = question.split("Report:\n")[1].split("\n\nSentence:\n")[0]
        sentence = question.split("Sentence:\n")[1].split("\n\nDoes")[0]
        kind = type(self)
        kind.asked += 1
        said = kind.answer or ("Yes." if sentence in report else "No.")
        reply = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
        self.send_response(kind.status)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, type[_JudgeServer]]]:
    kind = type("Handler", (_JudgeServer,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/v1", kind
        listening.shutdown()
        thread.join()


def test_a_judge_is_asked_of_each_sentence_both_ways_and_of_none_twice(
    server: tuple[str, type[_JudgeServer]],
) -> None:
    url, kind = server
    judge = Judge(url, "judge")
    true, predicted = (
        parse(EFFUSION),
        ReportText("There is a left pleural effusion. The heart is large.", (), "Big."),
    )
    found = judge.compare(true, predicted)
    assert found == EntailedSentences(right=1, written=3, covered=1, true=2)
    asked = kind.asked
    assert judge.compare(true, predicted) == found
    assert kind.asked == asked == 5


def test_entailment_is_among_the_figures_where_there_is_a_judge(
    folder: Path, server: tuple[str, type[_JudgeServer]]
) -> None:
    table = read_true_reports(folder / "test.csv", folder)
    images = answered(table, EFFUSION, NORMAL, NORMAL, judge=Judge(server[0], "judge"))
    scores = score_images(table, images)
    assert scores.figures["entailment_precision"] == pytest.approx(4 / 6)
    assert scores.figures["entailment_recall"] == pytest.approx(4 / 6)
    assert scores.figures["entailment_f1"] == pytest.approx(4 / 6)
    assert "entailment_f1" not in scores.absent


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [("Perhaps.", 200, "Perhaps"), (None, 404, "status 404"), (None, 500, "status 500")],
)
def test_a_judge_that_fails_is_no_judge_that_says_no(
    server: tuple[str, type[_JudgeServer]], answer: str | None, status: int, said: str
) -> None:
    url, kind = server
    kind.answer, kind.status = answer, status
    with pytest.raises(JudgeFailed, match=said):
        Judge(url, "judge").entails("The lungs are clear.", "The lungs are clear.")


def test_a_judge_that_is_not_there_is_named() -> None:
    with pytest.raises(JudgeFailed, match=r"127\.0\.0\.1:9.*EMX_SERVER"):
        Judge("http://127.0.0.1:9/v1", "judge").entails("Clear.", "Clear.")
