"""Rows of the training tables as token ids: what the model sees, and where the loss falls."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from emx_shared.contracts.findings import TERMS
from emx_shared.grammar import LocatedFinding, LocBox, MalformedReport, ReportText, parse
from emx_shared.imaging import MEDIA_TYPES, BadImage, NotAnImage, decode, media_type
from emx_training.data.phantom_reports import report_of
from emx_training.data.source_image import BadTable
from emx_training.pretrain.tokenizer import PROMPT
from emx_worker.model.architectures import Architecture, Processor, prompt_ids

IGNORED = -100
"""A label that torch's cross-entropy passes over."""


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
    """What a model takes.

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
            column = "impression" if _parses(ReportText(report.findings, (), "None.")) else "findings"
            raise BadTable(f"{table}, row {number}, column {column}: the text breaks the report grammar.")
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
        if name not in paths:
            paths[name] = _image(images / name, table, number)
        located = found.setdefault(name, [])
        if row["term"]:
            located.append(_located(row, table, number))
    reports = {name: report_of(located) for name, located in found.items()}
    for name, report in reports.items():
        if not _parses(report):
            raise BadTable(f"{table}: image {name} has more boxes ({len(report.locations)}) than a report holds.")
    return [Example(paths[name], ((str(report), True),)) for name, report in reports.items()]


class Collator:
    """Turns examples into batches for one model.

    Parameters:
        processor: with ``<locNNNN>`` tokens where the examples have boxes.

    Raises BadTable for an image that turns out to be damaged.
    """

    def __init__(self, architecture: Architecture, processor: Processor) -> None:
        self._architecture, self._processor = architecture, processor
        self._tokenizer = processor.tokenizer
        self._prompt: list[int] = prompt_ids(architecture, processor, PROMPT)[0].tolist()
        self._end = architecture.end(processor)

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
            token_type_ids=self._architecture.token_types(self._processor, input_ids, len(self._prompt)),
            attention_mask=torch.tensor(mask),
            labels=torch.tensor(labels),
        )

    def _answer(self, example: Example) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        labels: list[int] = []
        pieces = (*example.answer, (self._end, True))
        for text, trained in pieces:
            tokens = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += tokens
            labels += tokens if trained else [IGNORED] * len(tokens)
        return ids, labels


def _rows(table: Path, columns: Sequence[str]) -> Iterable[tuple[int, dict[str, str]]]:
    number = 1
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:  # spreadsheets begin a table with a BOM
            reader = csv.DictReader(stream)
            if lacking := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise BadTable(
                    f"{table} has no column {', '.join(lacking)}: make it with emx_training.dataset_prep."
                )
            for number, row in enumerate(reader, start=2):
                if None in row or None in row.values():
                    raise BadTable(f"{table}, row {number}: it has more or fewer cells than there are columns.")
                yield number, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadTable(f"{table} can't be read ({error}).") from None
    if number == 1:
        raise BadTable(f"{table} has no rows: make it with emx_training.dataset_prep.")


def _parses(report: ReportText) -> bool:
    try:
        return parse(str(report)) == report
    except MalformedReport:
        return False


def _image(path: Path, table: Path, number: int) -> Path:
    """The path, if an image begins there. That it is whole shows when it is decoded."""
    where = f"{table}, row {number}, column image"
    try:
        with path.open("rb") as file:
            kind = media_type(file.read(132))
        if kind != MEDIA_TYPES["DICOM"]:
            Image.open(path).close()
        return path
    except FileNotFoundError:
        raise BadTable(f"{where}: there is no file {path}.") from None
    except NotAnImage:
        raise BadTable(f"{where}: {path} is no PNG, JPEG, TIFF or DICOM image.") from None
    except (OSError, ValueError, SyntaxError) as error:
        raise BadTable(f"{where}: {path} can't be read ({error}).") from None


def _located(row: dict[str, str], table: Path, number: int) -> LocatedFinding:
    if row["term"] not in TERMS:
        raise BadTable(f"{table}, row {number}, column term: {row['term']!r} isn't in the finding vocabulary.")
    try:
        xmin, ymin, xmax, ymax = (float(row[name]) for name in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        raise BadTable(f"{table}, row {number}: xmin, ymin, xmax, ymax must be numbers.") from None
    for axis, low, high in (("x", xmin, xmax), ("y", ymin, ymax)):
        if not 0 <= low < high <= 1:
            raise BadTable(
                f"{table}, row {number}, columns {axis}min and {axis}max: the box is inverted, empty or outside "
                f"the image, which reaches from 0 to 1 ({low:g} and {high:g})."
            )
    return LocatedFinding(*TERMS[row["term"]], LocBox.of_fractions(ymin, xmin, ymax, xmax))


def _opened(path: Path) -> Image.Image:
    """As the worker sees it."""
    try:
        return decode(path.read_bytes(), max_bytes=512 * 2**20).image.convert("RGB")
    except (OSError, BadImage) as error:
        raise BadTable(f"{path} can't be used ({error}).") from None
