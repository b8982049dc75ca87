"""Rows of the training tables as token ids: what the model sees, and where the loss falls."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from shared.findings import TERMS
from shared.grammar import LocatedFinding, LocBox, MalformedReport, ReportText, parse
from training.dataset.study import BadTable
from training.lessons import prompt_ids
from training.reports import report_of

IGNORED = -100
"""A label that torch's cross-entropy passes over."""

_END = "<end_of_turn>"


@dataclass(frozen=True)
class Example:
    """One image with its answer, in pieces that the loss falls on or not.

    Attributes:
        answer: (text, trained) in order; together the report's text.
    """

    image: Path
    answer: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Batch:
    """What a Gemma 3 model takes.

    Attributes:
        pixel_values: (batch, 3, size, size) float32.
        input_ids, token_type_ids, attention_mask: (batch, prompt + answer) int64, padded on the right.
        labels: (batch, answer) int64, ``IGNORED`` where no loss falls.
    """

    pixel_values: Tensor
    input_ids: Tensor
    token_type_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(value.to(device) for value in vars(self).values()))


def read_reports(table: Path, images: Path) -> list[Example]:
    """Phase 1: image, findings, impression. The loss doesn't fall on LOCATIONS, of which such tables know nothing.

    Raises BadTable with row and column, before any time is spent on training.
    """
    examples = []
    for number, row in _rows(table, ("image", "findings", "impression")):
        report = ReportText(row["findings"], (), row["impression"])
        if not _parses(report):
            raise BadTable(f"{table}, row {number}: findings or impression break the report grammar.")
        answer = (
            (f"FINDINGS: {report.findings}\n", True),
            ("LOCATIONS: none", False),
            (f"\nIMPRESSION: {report.impression}", True),
        )
        examples.append(Example(_image(images / row["image"], table, number), answer))
    return examples


def read_boxes(table: Path, images: Path) -> list[Example]:
    """Phase 2: image, term and box in fractions of the image, a row for each box. Raises BadTable."""
    found: dict[str, list[LocatedFinding]] = {}
    paths: dict[str, Path] = {}
    for number, row in _rows(table, ("image", "term", "xmin", "ymin", "xmax", "ymax")):
        name = row["image"]
        paths.setdefault(name, images / name)
        located = found.setdefault(name, [])
        if not located:
            _image(paths[name], table, number)
        if row["term"]:
            located.append(_located(row, table, number))
    return [Example(paths[name], ((str(report_of(located)), True),)) for name, located in found.items()]


class Collator:
    """Turns examples into batches for one model.

    Parameters:
        processor: of a Gemma 3 checkpoint; with ``<locNNNN>`` tokens where the examples have boxes.
    """

    def __init__(self, processor: Any) -> None:
        self._processor, self._tokenizer = processor, processor.tokenizer
        self._prompt = prompt_ids(processor).tolist()
        self._image_token = self._tokenizer.image_token_id

    def __call__(self, examples: Sequence[Example]) -> Batch:
        answers = [self._answer(example) for example in examples]
        longest = max(len(ids) for ids, _ in answers)
        pad = self._tokenizer.pad_token_id
        ids = [[*self._prompt, *answer, *[pad] * (longest - len(answer))] for answer, _ in answers]
        mask = [[1] * (len(self._prompt) + len(a)) + [0] * (longest - len(a)) for a, _ in answers]
        labels = [[*kept, *[IGNORED] * (longest - len(kept))] for _, kept in answers]
        input_ids = torch.tensor(ids)
        pictures = [_opened(example.image) for example in examples]
        pixels = self._processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
        return Batch(
            pixel_values=pixels,
            input_ids=input_ids,
            token_type_ids=(input_ids == self._image_token).long(),
            attention_mask=torch.tensor(mask),
            labels=torch.tensor(labels),
        )

    def _answer(self, example: Example) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        labels: list[int] = []
        pieces = (*example.answer, (_END, True))
        for text, trained in pieces:
            tokens = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += tokens
            labels += tokens if trained else [IGNORED] * len(tokens)
        return ids, labels


def _rows(table: Path, columns: Sequence[str]) -> Iterable[tuple[int, dict[str, str]]]:
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if lacking := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise BadTable(f"{table} has no column {', '.join(lacking)}: make it with training.dataset_prep.")
            yield from enumerate(reader, start=2)
    except (OSError, UnicodeDecodeError) as error:
        raise BadTable(f"{table} can't be read ({error}).") from None


def _parses(report: ReportText) -> bool:
    try:
        return parse(str(report)) == report
    except MalformedReport:
        return False


def _image(path: Path, table: Path, number: int) -> Path:
    if not path.is_file():
        raise BadTable(f"{table}, row {number}, column image: there is no file {path}.")
    return path


def _located(row: dict[str, str], table: Path, number: int) -> LocatedFinding:
    if row["term"] not in TERMS:
        raise BadTable(f"{table}, row {number}, column term: {row['term']!r} isn't in the finding vocabulary.")
    try:
        xmin, ymin, xmax, ymax = (float(row[name]) for name in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        raise BadTable(f"{table}, row {number}: xmin, ymin, xmax, ymax must be numbers.") from None
    if not (0 <= xmin < xmax <= 1 and 0 <= ymin < ymax <= 1):
        raise BadTable(f"{table}, row {number}: the box is inverted, empty or outside 0 to 1.")
    return LocatedFinding(*TERMS[row["term"]], LocBox.of_fractions(ymin, xmin, ymax, xmax))


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
