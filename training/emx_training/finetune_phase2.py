"""Phase 2: teach the adapter of phase 1 where findings are.

The projector is unfrozen, and location tokens are judged by how far off they are.

``python -m emx_training.finetune_phase2 --csv vindr/boxes.csv --output runs/phase2 --phase1_ckpt runs/phase1``

The validation table is ``boxes-validation.csv`` beside ``boxes.csv``, with other patients, as dataset_prep writes
it; where there is none, one image in ten, by its name, is kept for validation. ``--replay`` names the table that
phase 1 learned from: as many of its reports are learned beside the boxes, so that the adapter doesn't forget their
language, and boxes are learned after the words that phase 1's model writes of the image. To resume an interrupted
run, start it again with the same ``--output``. When it is done, set a worker's EMX_ADAPTER to that folder.
"""

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from emx_training.data.tables import BadTable
from emx_training.finetune.collator import Collator
from emx_training.finetune.examples import Example, read_boxes, read_reports
from emx_training.finetune.loop import TrainingDiverged, finetune
from emx_training.finetune.lora import load_base, location_adapter, read_phase1
from emx_training.finetune.own_words import in_own_words
from emx_training.finetune.training_options import (
    BadOption,
    add_training_options,
    output_folder,
    training_options_of,
)
from emx_worker.model.checkpoint import ModelError

OWN_WORDS = "own-words.json"
"""Of the output folder: phase 1's reports of the images, kept for a resumed run."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = _options(arguments)
    try:
        before = read_phase1(options.phase1_ckpt)
        chosen, output = training_options_of(options), output_folder(options.output)
        if output.samefile(options.phase1_ckpt):
            raise BadOption(
                "--output is the folder of phase 1's adapter, which it would overwrite: choose another."
            )
        train, validation = _read(options, output)
        base = load_base(options.base, options.quantisation, adapters=[options.phase1_ckpt, output])
        torch.manual_seed(options.seed)
        model, first = location_adapter(base, before)
        base.describe(output)
        collate = Collator(base.architecture, base.processor)
        losses = finetune(model, collate, train, validation, chosen, output, first)
    except (BadOption, BadTable, ModelError, TrainingDiverged) as error:
        sys.exit(str(error))
    print(json.dumps({"validation_losses": losses, "adapter": str(output)}, indent=2))


def _read(options: argparse.Namespace, output: Path) -> tuple[list[Example], list[Example]]:
    """Read the examples to train on and those to validate with."""
    images = options.images or options.csv.parent
    examples = read_boxes(options.csv, images)
    replayed = _replayed(options, len(examples))
    beside = options.csv.with_name(f"{options.csv.stem}-validation.csv")
    if options.validation or beside.exists():
        train, validation = examples, read_boxes(options.validation or beside, images)
    else:
        train = [example for example in examples if not _is_validation(example)] or examples
        validation = [example for example in examples if _is_validation(example)] or examples[:1]
    if options.replay:
        both = in_own_words(
            [*train, *validation], options.base, options.phase1_ckpt, options.quantisation, output / OWN_WORDS
        )
        train, validation = both[: len(train)], both[len(train) :]
    return train + replayed, validation


def _replayed(options: argparse.Namespace, count: int) -> list[Example]:
    """Return at most so many of phase 1's examples, chosen by the seed."""
    if not options.replay:
        return []
    reports = read_reports(options.replay, options.replay_images or options.replay.parent)
    return random.Random(options.seed).sample(reports, min(count, len(reports)))


def _is_validation(example: Example) -> bool:
    """Return whether an image is kept for validation: about one in ten, by a hash of its name."""
    return hashlib.sha256(example.image.name.encode()).digest()[0] < 26


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m emx_training.finetune_phase2",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--csv", type=Path, required=True, help="image, term, xmin, ymin, xmax, ymax (0 to 1)")
    parser.add_argument("--images", type=Path, help="folder that the table's paths start from; default: its own")
    parser.add_argument(
        "--validation", type=Path, help="validation table; default: boxes-validation.csv beside --csv"
    )
    parser.add_argument("--replay", type=Path, help="phase 1's table, to be learned beside the boxes")
    parser.add_argument(
        "--replay_images", type=Path, help="folder that the paths of --replay start from; default: its own"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write the adapter to")
    parser.add_argument("--phase1_ckpt", type=Path, required=True, help="folder of phase 1's adapter")
    add_training_options(parser, epochs=30, patience=5)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
