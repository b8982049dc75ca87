"""Results files: the true and the predicted report of each image."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from emx_shared.grammar import MalformedReport, ReportText, parse

NOTHING = ReportText("", (), "")
"""What counts as reported if the model declined, or if the prediction breaks the report grammar."""


class BadPredictions(ValueError):
    """A results file is invalid. The message names file, item and field."""


class ForcedTokens(BaseModel):
    """Tokens of a true report that the model predicts when the true tokens before each are given.

    Attributes:
        words: tokens that aren't locations, including the end of the turn.
        right_words: words that are predicted.
        locations: location tokens.
        right_locations: location tokens that are predicted.
        near_locations: location tokens for which a location at most ``teacher_forcing.NEAR`` bins off is
            predicted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: NonNegativeInt
    right_words: NonNegativeInt
    locations: NonNegativeInt
    right_locations: NonNegativeInt
    near_locations: NonNegativeInt


class Prediction(BaseModel):
    """One image of a results file.

    Attributes:
        id: of the image; a phantom's is its seed.
        truth, prediction: the reports as text.
        abstained: whether the model declined to read the image; its prediction then counts as empty.
        probabilities: of each location of the prediction, in order, 0 to 1; empty if unknown.
        site: where a phantom was drawn; None for other images.
        tokens: of the truth, under teacher forcing; None if not measured.
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    truth: str
    prediction: str
    abstained: bool = False
    probabilities: list[float] = []
    site: str | None = None
    tokens: ForcedTokens | None = None


@dataclass(frozen=True)
class Case:
    """One image with its reports parsed.

    Attributes:
        id: of the image.
        truth: the true report.
        reported: the predicted report; ``NOTHING`` if the model declined or the prediction breaks the grammar.
        parsed: whether the prediction follows the grammar.
        abstained: whether the model declined to read the image.
        probabilities: of each of ``reported.locations``; None if unknown.
        site: where a phantom was drawn; None for other images.
        tokens: of the truth, under teacher forcing; None if not measured.
    """

    id: str
    truth: ReportText
    reported: ReportText
    parsed: bool
    abstained: bool
    probabilities: tuple[float, ...] | None
    site: str | None
    tokens: ForcedTokens | None


def case_of(item: Prediction) -> Case:
    """Parse the reports of an image.

    Raises:
        BadPredictions: if the truth breaks the report grammar, or the probabilities don't fit the locations.
    """
    try:
        truth = parse(item.truth)
    except MalformedReport:
        raise BadPredictions("the truth breaks the report grammar") from None
    try:
        reported, parsed = parse(item.prediction), True
    except MalformedReport:
        reported, parsed = NOTHING, False
    if parsed and item.probabilities and len(item.probabilities) != len(reported.locations):
        raise BadPredictions(f"{len(item.probabilities)} probabilities for {len(reported.locations)} locations")
    if not all(0 <= probability <= 1 for probability in item.probabilities):
        raise BadPredictions("a probability is not between 0 and 1")
    if item.abstained:
        reported = NOTHING
    return Case(
        id=item.id,
        truth=truth,
        reported=reported,
        parsed=parsed,
        abstained=item.abstained,
        probabilities=tuple(item.probabilities[: len(reported.locations)]) or None,
        site=item.site,
        tokens=item.tokens,
    )


def read_cases(file: Path) -> list[Case]:
    """Read a results file: a JSON list of ``Prediction``.

    Raises:
        BadPredictions: if the file can't be read or an item is invalid.
    """
    items = _read_list(file)
    return [_named_case(item, f"{file}, item {number}") for number, item in enumerate(items, start=1)]


def write_predictions(predictions: Iterable[Prediction], file: Path) -> None:
    """Write a results file, a line for each image.

    Raises:
        OSError: if the file can't be written.
    """
    listed = ",\n".join(prediction.model_dump_json() for prediction in predictions)
    file.write_text(f"[{listed}]\n", encoding="utf-8")


def _read_list(file: Path) -> list[Any]:
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadPredictions(f"{file} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BadPredictions(f"{file} isn't JSON: it isn't UTF-8 text.") from None
    except json.JSONDecodeError as error:
        raise BadPredictions(f"{file} isn't JSON: {error.msg} in line {error.lineno}.") from None
    if not isinstance(items, list) or not items:
        raise BadPredictions(f"{file} contains no list of images: give each an id, a truth and a prediction.")
    return items


def _named_case(item: Any, place: str) -> Case:
    if isinstance(item, dict) and isinstance(item.get("id"), str):
        place += f" (id {item['id']})"
    try:
        return case_of(Prediction.model_validate(item))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise BadPredictions(f"{place}{field and f', field {field}'}: {first['msg']}.") from None
    except BadPredictions as error:
        raise BadPredictions(f"{place}: {error}.") from None
