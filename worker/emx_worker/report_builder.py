"""Builds the report of an image from what the model generated."""

from datetime import UTC, datetime

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
from emx_worker.image_task import Generation, ImageTask

CUT_SHORT_WARNING = (
    "The report was cut short at its token limit: its text is unfinished, and abnormalities may be missing."
)
UNUSED_INDICATION_WARNING = "The indication was not used: this model was not trained to take one."

NOT_READ = ReportText("This image was not read.", (), "No impression.")
"""The text of a report that the model declined to write."""


def decline_reason(distance: float, threshold: float) -> str:
    """Explain to people why an image was not read.

    Args:
        distance: of the image from the training images (see ``OodGuard``).
        threshold: the largest distance that is still read.
    """
    return (
        "Not read: this image is unlike those that the model was trained on "
        f"(distance {distance:.0f}; at most {threshold:.0f} are read)."
    )


def abstention(reason: str, prompt_tokens: int, prefill_seconds: float) -> Generation:
    """Build a generation without findings for an image that the model declined."""
    return Generation(
        text=str(NOT_READ),
        parsed=NOT_READ,
        cut_short=False,
        prompt_tokens=prompt_tokens,
        tokens=(),
        prefill_seconds=prefill_seconds,
        generate_seconds=0.0,
        declined=reason,
    )


def build_report(
    task: ImageTask, generation: Generation, provenance: ModelProvenance, takes_indication: bool = False
) -> Report:
    """Build the report of a generation, with boxes in pixels of the original image.

    Args:
        task: the image that was read.
        generation: what the model wrote about it.
        provenance: of the model.
        takes_indication: whether the model was trained to use clinical context; if not, and the task has an
            indication, the report warns that it was not used.
    """
    probabilities = generation.probabilities or [None] * len(generation.parsed.locations)
    return Report(
        findings=generation.parsed.findings,
        impression=generation.parsed.impression,
        locations=tuple(
            _location(located, task.facts, probability)
            for located, probability in zip(generation.parsed.locations, probabilities, strict=True)
        ),
        abstained=generation.declined is not None,
        warnings=_warnings(task, generation, provenance, takes_indication),
        image=task.facts,
        model=provenance,
        timings=Timings(
            decode=task.decode_seconds, prefill=generation.prefill_seconds, generate=generation.generate_seconds
        ),
        tokens=TokenCounts(prompt=generation.prompt_tokens, generated=len(generation.tokens)),
        created_at=datetime.now(UTC),
    )


def _warnings(
    task: ImageTask, generation: Generation, provenance: ModelProvenance, takes_indication: bool
) -> tuple[str, ...]:
    warnings = [generation.declined] if generation.declined else []
    warnings += task.warnings
    if provenance.demo:
        warnings.append(DEMO_WARNING)
    if provenance.untrained:
        warnings.append(UNTRAINED_WARNING)
    if task.indication and not takes_indication:
        warnings.append(UNUSED_INDICATION_WARNING)
    if generation.cut_short:
        warnings.append(CUT_SHORT_WARNING)
    return tuple(warnings)


def _location(located: LocatedFinding, facts: ImageFacts, probability: float | None) -> Location:
    box, normalised = boxes_on(located.box, facts.width, facts.height)
    return Location(
        label=located.finding.label,
        code=located.finding.code,
        snomed_ct=located.finding.snomed_ct,
        radlex=located.finding.radlex,
        laterality=located.laterality,
        box=box,
        box_normalised=normalised,
        box_stored=facts.stored(box),
        colour=located.finding.colour,
        # Four decimals: further ones depend on the size of the batch that the image was read in.
        probability=None if probability is None else round(probability, 4),
    )


def boxes_on(box: LocBox, width: int, height: int) -> tuple[Box, Box]:
    """Map a box in location bins to the original image.

    The processors of Gemma 3 and PaliGemma stretch an image of any shape to a square, so each axis maps back by
    its own scale. Where a model gets its image padded to a square, the notation has already removed the padding.
    The first and last bin are the image's edges, so no box reaches beyond the image.

    Args:
        box: in location bins (0 to 1023) of the image.
        width: of the original, in pixels.
        height: of the original, in pixels.

    Returns:
        The box in pixels of the original, and as fractions (0 to 1) of its width and height.
    """
    ymin, xmin, ymax, xmax = box.fractions()
    normalised = Box(xmin=xmin, ymin=ymin, xmax=xmax, ymax=ymax)
    return Box(xmin=xmin * width, ymin=ymin * height, xmax=xmax * width, ymax=ymax * height), normalised
