"""Phase 1's own reports of the images that phase 2 trains on: the words that LOCATIONS follow when a worker reads.

A table of boxes has no radiologist's text. Trained after a template's sentences, LOCATIONS fit these, and less
well the sentences that the model writes itself.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from transformers.utils import logging

from emx_shared.grammar import LOCATIONS
from emx_shared.imaging import BadImage, decode
from emx_training.finetune.examples import Example
from emx_worker.engine.engine import Engine
from emx_worker.image_task import Generation, ImageTask
from emx_worker.model.loading import load_model

_BATCH = 32
"""Images that are decoded and handed to the engine together."""


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
    missing = [one.image for one in examples if str(one.image) not in texts]
    if missing:
        texts |= _written(missing, base, adapter, quantisation)
        kept.write_text(json.dumps(texts, indent=1), encoding="utf-8")
    return [_with_text(one, texts[str(one.image)]) for one in examples]


def _written(images: Sequence[Path], base: str, adapter: Path, quantisation: str) -> dict[str, str]:
    """Return what the model writes of each image; an empty text where it writes nothing."""
    logging.disable_progress_bar()
    engine = Engine(load_model(base, adapter=adapter, quantisation=quantisation))
    texts = {str(image): "" for image in images}
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("Reading the images with phase 1's model", total=len(images))
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            for answer, task in _read(engine, batch):
                if isinstance(answer, Generation) and answer.declined is None:
                    texts[task.id] = str(answer.parsed)
            progress.advance(bar, len(batch))
    return texts


def _read(engine: Engine, images: Sequence[Path]) -> list[tuple[object, ImageTask]]:
    tasks = []
    for image in images:
        try:
            decoded = decode(image.read_bytes())
        except (BadImage, OSError):  # training names it when its turn comes
            continue
        tasks.append(ImageTask(id=str(image), image=decoded.image, facts=decoded.facts))
    return list(zip(engine.generate(tasks), tasks, strict=True))


def _with_text(example: Example, text: str) -> Example:
    """Return an example with a report's text around its LOCATIONS."""
    before, marker, rest = text.partition(LOCATIONS.rstrip())
    if not marker:
        return example
    _, located, line_break, _ = example.answer
    return Example(
        example.image, ((before + marker, False), located, line_break, (rest.partition("\n")[2], False))
    )
