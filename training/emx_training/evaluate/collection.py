"""Judge a model on a table of a collection: read its images, score the reports, and compare with baselines."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emx_shared.contracts.report import ModelProvenance
from emx_training.data.tables import BadTable
from emx_training.evaluate.baselines import best_constant_report
from emx_training.evaluate.collection_scores import CollectionScores, JudgedImage, judged, score_images
from emx_training.evaluate.entailment import Judge
from emx_training.evaluate.image_reader import Reading, read_images
from emx_training.evaluate.predictions import Prediction
from emx_training.evaluate.true_reports import TrueReport, TrueTable, read_true_reports

ReadModel = Callable[[str, Sequence[TrueReport]], Reading]
"""Reads images with the model of that name, without an adapter."""


@dataclass(frozen=True)
class Baseline:
    """Another way to get reports of the same images.

    Attributes:
        name: what it is.
        scores: its scores; None if it isn't at hand.
        absent: why it isn't at hand; empty if it is.
    """

    name: str
    scores: CollectionScores | None = None
    absent: str = ""


@dataclass(frozen=True)
class Judgement:
    """A model, judged on a table.

    Attributes:
        table: the table's file name, for the reader; never its folder.
        true: its reports.
        model: which model read it.
        images: what it wrote, image by image.
        scores: of these.
        baselines: beside it.
        unreadable: images that couldn't be decoded, and why.
    """

    table: str
    true: TrueTable
    model: ModelProvenance
    images: Sequence[JudgedImage]
    scores: CollectionScores
    baselines: Sequence[Baseline]
    unreadable: dict[str, str]

    def summary(self) -> dict[str, object]:
        """Return everything but the single images as plain values, for JSON."""
        return {
            "table": self.table,
            "model": self.model.model_dump(mode="json"),
            "labels_from": self.true.labels_from,
            "has_boxes": self.true.has_boxes,
            "left_out": self.true.left_out,
            "unreadable": self.unreadable,
            **self.scores.summary(),
            "baselines": {
                one.name: {"absent": one.absent} if one.scores is None else one.scores.summary()
                for one in self.baselines
            },
        }

    def write(self, file: Path) -> None:
        """Write the summary and each image's two reports, as JSON.

        Raises:
            OSError: if the file can't be written.
        """
        cases = [
            {
                "image": one.true.name,
                "truth": str(one.true.report),
                "prediction": str(one.case.reported),
                "parsed": one.case.parsed,
                "abstained": one.case.abstained,
                "true_labels": sorted(one.true.labels),
                "text_labels": sorted(one.in_text),
                "location_labels": sorted(one.in_locations),
            }
            for one in self.images
        ]
        file.write_text(json.dumps({**self.summary(), "cases": cases}, indent=2) + "\n", encoding="utf-8")


def judge_model(
    table: Path,
    images: Path,
    model: str,
    *,
    train: Path | None = None,
    baseline: str | None = None,
    judge: Judge | None = None,
    count: int | None = None,
    adapter: str | None = None,
    device: str = "auto",
    quantisation: str = "auto",
) -> Judgement:
    """Read a table's images with a model, and score its reports.

    Args:
        table: of phase 1 or of phase 2, as dataset_prep writes it.
        images: the folder that its paths start from.
        model: checkpoint directory or hub id.
        train: table of the same kind, from which the constant report is taken.
        baseline: another model to read the same images, as it was published.
        judge: compares sentences; None to leave that out.
        count: the first images to read; None for all.
        adapter: directory of a PEFT adapter of the model.
        device: auto, cpu or cuda.
        quantisation: of the weights.

    Raises:
        BadTable: if a table is invalid, or none of its images can be read.
        ModelError: if a model can't be loaded.
        JudgeFailed: if the judge can't be asked.
    """
    true = read_true_reports(table, images)
    chosen = true.reports[:count]

    def judge_all(reading: Reading) -> list[JudgedImage]:
        return [
            judged(one, prediction, judge) for one in chosen if (prediction := reading.predictions.get(one.name))
        ]

    reading = read_images(model, chosen, adapter=adapter, device=device, quantisation=quantisation)
    found = judge_all(reading)
    if not found:
        first = next(iter(reading.unreadable.items()), ("", "the table is empty"))
        raise BadTable(f"{table}: no image could be read; {first[0]}: {first[1]}")
    baselines = [_constant(true, chosen, reading, train, images)]
    if baseline is None:
        baselines.append(Baseline("untuned", absent="no model was named: --baseline MODEL"))
    else:
        other = read_images(baseline, chosen, device=device, quantisation=quantisation)
        baselines.append(Baseline("untuned", score_images(true, judge_all(other))))
    return Judgement(
        table=table.name,
        true=true,
        model=reading.model,
        images=found,
        scores=score_images(true, found),
        baselines=baselines,
        unreadable=reading.unreadable,
    )


def _constant(
    true: TrueTable, chosen: Sequence[TrueReport], reading: Reading, train: Path | None, images: Path
) -> Baseline:
    """Score the report that is best without looking: of boxes ``best_constant_report``, else the most frequent."""
    if train is None:
        return Baseline("constant", absent="there is no training table beside the table: --train TABLE")
    known = read_true_reports(train, images)
    if known.has_boxes != true.has_boxes:
        return Baseline("constant", absent=f"{train.name} is a table of another kind")
    texts = [str(one.report) for one in known.reports]
    text = best_constant_report(texts) if true.has_boxes else Counter(texts).most_common(1)[0][0]
    constants = [
        judged(one, Prediction(id=one.name, truth=str(one.report), prediction=text))
        for one in chosen
        if one.name in reading.predictions
    ]
    return Baseline("constant", score_images(true, constants))
