"""A study, what the model wrote of it, and the report that this makes."""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

from PIL import Image

from emx_shared.contracts.report import (
    DEMO_WARNING,
    UNTRAINED_WARNING,
    Box,
    ImageFacts,
    Location,
    ModelProvenance,
    Report,
    Timings,
    TokenCounts,
)
from emx_shared.grammar import LocatedFinding, LocBox, ReportText

CUT_SHORT_WARNING = (
    "The report was cut short at its token limit: its text is unfinished, and abnormalities may be missing."
)


UNUSED_INDICATION_WARNING = "The indication was not used: this model was not trained to take one."

NOT_READ = ReportText("This image was not read.", (), "No impression.")
"""What stands in the place of a report that the model declined to write."""


@dataclass(frozen=True, eq=False)
class Study:
    """One radiograph to read.

    Attributes:
        image: upright, in any mode that converts to RGB.
        facts: of the original, whose pixels the boxes refer to.
        decode_seconds: what the decoding of the image's bytes took.
        indication: clinical context, for models that take it.
        cancelled: once set, the engine drops the study at its next step.
    """

    id: str
    image: Image.Image
    facts: ImageFacts
    decode_seconds: float = 0.0
    indication: str | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class StudyFault:
    """Why a study got no report, without anything of the patient.

    ``code`` is ``cancelled``, ``image`` (the processor can't take it), ``not_finite`` (the model's numbers
    overflowed), ``grammar`` (the constraint failed) or ``engine`` (anything else; the log has it).
    """

    code: str
    message: str


ENGINE_FAULT = StudyFault("engine", "The engine failed on this study.")
GRAMMAR_FAULT = StudyFault("grammar", "The report could not be held to its grammar.")


@dataclass(frozen=True)
class Reading:
    """What the model wrote.

    Attributes:
        text: as written, byte for byte.
        parsed: the text in parts, without locations that the model hadn't finished when it was cut short.
        cut_short: whether the token budget ended the report before the model did.
        prompt_tokens: length of the prompt, image tokens included.
        tokens: the text's, and the one that ended the turn.
        prefill_seconds, generate_seconds: of the batch in which the study was read.
        declined: why the model abstained; None where it read the image.
        token_probabilities: of each of ``tokens`` among those that the grammar allowed; empty where not known.
        probabilities: of each of ``parsed.locations`` (see ``engine/confidence.py``); empty where not known.
    """

    text: str
    parsed: ReportText
    cut_short: bool
    prompt_tokens: int
    tokens: tuple[int, ...]
    prefill_seconds: float
    generate_seconds: float
    declined: str | None = None
    token_probabilities: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()


def declined(distance: float, threshold: float) -> str:
    """Why an image isn't read, for people."""
    return (
        "Not read: this image is unlike those that the model was trained on "
        f"(distance {distance:.0f}; at most {threshold:.0f} are read)."
    )


def abstention(reason: str, prompt_tokens: int, prefill_seconds: float) -> Reading:
    """A reading without findings, that says why there is none."""
    return Reading(
        text=str(NOT_READ),
        parsed=NOT_READ,
        cut_short=False,
        prompt_tokens=prompt_tokens,
        tokens=(),
        prefill_seconds=prefill_seconds,
        generate_seconds=0.0,
        declined=reason,
    )


def report_of(
    study: Study, reading: Reading, provenance: ModelProvenance, takes_indication: bool = False
) -> Report:
    """The report of a reading, with boxes in pixels of the original image."""
    warnings = [DEMO_WARNING] if provenance.demo else []
    if provenance.untrained:
        warnings.append(UNTRAINED_WARNING)
    if study.indication and not takes_indication:
        warnings.append(UNUSED_INDICATION_WARNING)
    if reading.cut_short:
        warnings.append(CUT_SHORT_WARNING)
    if reading.declined:
        warnings.insert(0, reading.declined)
    return Report(
        findings=reading.parsed.findings,
        impression=reading.parsed.impression,
        locations=tuple(
            _location(located, study.facts, probability)
            for located, probability in zip(
                reading.parsed.locations,
                reading.probabilities or [None] * len(reading.parsed.locations),
                strict=True,
            )
        ),
        abstained=reading.declined is not None,
        warnings=tuple(warnings),
        image=study.facts,
        model=provenance,
        timings=Timings(
            decode=study.decode_seconds, prefill=reading.prefill_seconds, generate=reading.generate_seconds
        ),
        tokens=TokenCounts(prompt=reading.prompt_tokens, generated=len(reading.tokens)),
        created_at=datetime.now(UTC),
    )


def _location(located: LocatedFinding, facts: ImageFacts, probability: float | None) -> Location:
    box, normalised = boxes_on(located.box, facts.width, facts.height)
    return Location(
        label=located.finding.label,
        code=located.finding.code,
        snomed_ct=located.finding.snomed_ct,
        laterality=located.laterality,
        box=box,
        box_normalised=normalised,
        colour=located.finding.colour,
        # Four digits: the ones behind them depend on how large a batch the study was read in.
        probability=None if probability is None else round(probability, 4),
    )


def boxes_on(box: LocBox, width: int, height: int) -> tuple[Box, Box]:
    """A box in location bins as pixels of the original (width × height) and as fractions of it.

    The processors of Gemma 3 and PaliGemma stretch an image of any shape to a square, so each axis maps back by
    its own scale; where a dialect pads the image first, its notation has taken that back. Bins end on the image's
    edges, so that no box reaches beyond it.
    """
    ymin, xmin, ymax, xmax = box.fractions()
    normalised = Box(xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
    return Box(xmin=xmin * width, ymin=ymin * height, xmax=xmax * width, ymax=ymax * height), normalised
