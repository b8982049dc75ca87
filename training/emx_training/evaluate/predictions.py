"""A results file: the true and the predicted report of each study, and the studies made ready to be judged."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from emx_shared.grammar import MalformedReport, ReportText, parse

NOTHING = ReportText("", (), "")
"""What counts as told by a study that was declined, or whose prediction is no report."""


class BadPredictions(ValueError):
    """These predictions can't be judged; the text names file, item and field."""


class ForcedTokens(BaseModel):
    """Tokens of a true report that the model would have written, the true ones before each being given.

    ``near_locations``: those that are at most ``teacher_forcing.NEAR`` bins off, or right.
    Words are all tokens that are no locations, the end of the turn included.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: NonNegativeInt
    right_words: NonNegativeInt
    locations: NonNegativeInt
    right_locations: NonNegativeInt
    near_locations: NonNegativeInt


class Prediction(BaseModel):
    """One study of a results file.

    Attributes:
        id: of the study; a phantom's is its seed.
        truth, prediction: the reports as text.
        abstained: the model declined to read the study; what the prediction says isn't counted as told.
        probabilities: of each location of the prediction, in order, 0 to 1; empty where not known.
        site: where a phantom was drawn; None for other studies.
        tokens: of the truth, under teacher forcing; None where not measured.
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
    """One study with its reports taken apart.

    Attributes:
        told: the predicted report; ``NOTHING`` where the study was declined or the prediction is no report.
        parsed: whether the prediction is a report of the grammar.
        abstained: whether the model declined to read the study.
        probabilities: of each of ``told.locations``; None where not known.
    """

    id: str
    truth: ReportText
    told: ReportText
    parsed: bool
    abstained: bool
    probabilities: tuple[float, ...] | None
    site: str | None
    tokens: ForcedTokens | None


def case_of(study: Prediction) -> Case:
    """Raises BadPredictions if the truth is no report, or if the probabilities aren't those of the locations."""
    try:
        truth = parse(study.truth)
    except MalformedReport:
        raise BadPredictions("the truth is no report of the grammar") from None
    try:
        told, parsed = parse(study.prediction), True
    except MalformedReport:
        told, parsed = NOTHING, False
    if parsed and study.probabilities and len(study.probabilities) != len(told.locations):
        raise BadPredictions(f"{len(study.probabilities)} probabilities for {len(told.locations)} locations")
    if not all(0 <= probability <= 1 for probability in study.probabilities):
        raise BadPredictions("a probability is not between 0 and 1")
    if study.abstained:
        told = NOTHING
    return Case(
        id=study.id,
        truth=truth,
        told=told,
        parsed=parsed,
        abstained=study.abstained,
        probabilities=tuple(study.probabilities[: len(told.locations)]) or None,
        site=study.site,
        tokens=study.tokens,
    )


def read_cases(file: Path) -> list[Case]:
    """The studies of a results file: a JSON list of ``Prediction``. Raises BadPredictions, in one sentence."""
    items = _read_list(file)
    return [_named_case(item, f"{file}, item {number}") for number, item in enumerate(items, start=1)]


def write_predictions(predictions: Iterable[Prediction], file: Path) -> None:
    """A line for each study. Raises OSError."""
    listed = ",\n".join(prediction.model_dump_json() for prediction in predictions)
    file.write_text(f"[{listed}]\n", encoding="utf-8")


def _read_list(file: Path) -> list[Any]:
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadPredictions(f"{file} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BadPredictions(f"{file} is no JSON: it isn't even text in UTF-8.") from None
    except json.JSONDecodeError as error:
        raise BadPredictions(f"{file} is no JSON: {error.msg} in line {error.lineno}.") from None
    if not isinstance(items, list) or not items:
        raise BadPredictions(f"{file} holds no list of studies: each needs id, truth and prediction.")
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
