"""Phase 1's own reports of the images that phase 2 trains on: the words that LOCATIONS follow when a worker reads.

A table of boxes has no radiologist's text. Trained after a template's sentences, LOCATIONS fit these, and less
well the sentences that the model writes itself.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from emx_shared.grammar import LOCATIONS
from emx_training.evaluate.image_reader import read_files
from emx_training.finetune.examples import Example
from emx_worker.image_task import Generation


def in_own_words(
    examples: Sequence[Example], base: str, adapter: Path, quantisation: str, kept: Path
) -> list[Example]:
    """Return examples whose text around LOCATIONS is what the model of phase 1 writes; LOCATIONS stay.

    An image that can't be decoded, or that the model declines to read, keeps its text.

    Args:
        examples: of a table of boxes.
        base: checkpoint directory or hub id.
        adapter: of phase 1.
        quantisation: of the weights.
        kept: JSON file of the texts, by the image's path; it is read if it exists, so that a resumed run trains on
            the same, and written else.

    Raises:
        ModelError: if the model can't be loaded.
    """
    texts: dict[str, str] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    missing = {str(one.image): one.image for one in examples if str(one.image) not in texts}
    if missing:
        answers = read_files(base, missing, adapter=adapter, quantisation=quantisation).answers
        written = {name: answer for name, answer in answers.items() if isinstance(answer, Generation)}
        texts |= dict.fromkeys(missing, "")
        texts |= {name: str(answer.parsed) for name, answer in written.items() if answer.declined is None}
        kept.write_text(json.dumps(texts, indent=1), encoding="utf-8")
    return [_with_text(one, texts[str(one.image)]) for one in examples]


def _with_text(example: Example, text: str) -> Example:
    """Return an example with a report's text around its LOCATIONS."""
    before, marker, rest = text.partition(LOCATIONS.rstrip())
    if not marker:
        return example
    _, located, line_break, _ = example.answer
    return Example(
        example.image, ((before + marker, False), located, line_break, (rest.partition("\n")[2], False))
    )
