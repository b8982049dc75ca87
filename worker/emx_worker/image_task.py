"""An image to read, and what the model generates for it."""

import threading
from dataclasses import dataclass, field

from PIL import Image

from emx_shared.contracts.report import ImageFacts
from emx_shared.grammar import ReportText


@dataclass(frozen=True, eq=False)
class ImageTask:
    """One radiograph to read.

    Attributes:
        id: the job's id, or any name that is unique among the images being read.
        image: upright, in any mode that converts to RGB.
        facts: of the original, whose pixels the boxes refer to.
        warnings: what the report has to say of how the image was read.
        decode_seconds: time that decoding the image's bytes took.
        indication: clinical context, for models that take it.
        urgent: images that are not wait while this one is read.
        cancelled: once set, the backend drops the image at its next step.
    """

    id: str
    image: Image.Image
    facts: ImageFacts
    warnings: tuple[str, ...] = ()
    decode_seconds: float = 0.0
    indication: str | None = None
    urgent: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class ImageFault:
    """Why an image got no report. Contains nothing about the patient.

    Attributes:
        code: ``cancelled``, ``image`` (the image processor can't take it), ``not_finite`` (the model's numbers
            overflowed), ``grammar`` (the text broke the report grammar) or ``engine`` (anything else; see the
            log).
        message: the same as a sentence.
    """

    code: str
    message: str


CANCELLED_FAULT = ImageFault("cancelled", "Reading this image was cancelled.")
ENGINE_FAULT = ImageFault("engine", "The engine failed on this image. The worker's log says why.")
GRAMMAR_FAULT = ImageFault("grammar", "The text that the model wrote breaks the report grammar.")


@dataclass(frozen=True)
class Generation:
    """The text that the model generated for one image, or its abstention.

    Attributes:
        text: as generated, byte for byte.
        parsed: the text in parts, without locations that the model had not completed when it was cut short.
        cut_short: whether the token budget ended the report before the model did.
        prompt_tokens: length of the prompt, image tokens included.
        tokens: ids of the text's tokens and of the end-of-turn token.
        prefill_seconds, generate_seconds: of the batch that the image was read in.
        declined: why the model abstained; None if it read the image.
        token_probabilities: of each of ``tokens`` among the tokens that the grammar allowed; empty if unknown.
        probabilities: of each of ``parsed.locations`` (see ``engine/confidence.py``); empty if unknown.
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
