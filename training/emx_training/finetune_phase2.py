"""Phase 2: the adapter of phase 1 learns where findings are. The projector is unfrozen, and location tokens are
judged by how far off they are.

``python -m emx_training.finetune_phase2 --csv vindr/boxes.csv --output runs/phase2 --phase1_ckpt runs/phase1``

One image in ten, by its name, is kept for validation. A run that was interrupted goes on when it is started again
with the same ``--output``, which is then what a worker takes as EMX_ADAPTER.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from emx_training.data.source_image import BadTable
from emx_training.finetune.adapting import for_locations, load_base
from emx_training.finetune.examples import Collator, Example, read_boxes
from emx_training.finetune.loop import BadOption, add_recipe_options, finetune, folder_of, recipe_of
from emx_worker.model.checkpoint import ModelError


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    try:
        recipe, output = recipe_of(options), folder_of(options.output)
        examples = read_boxes(options.csv, options.images or options.csv.parent)
        train = [example for example in examples if not _kept_back(example)] or examples
        validation = [example for example in examples if _kept_back(example)] or examples[:1]
        foundation = load_base(options.base, options.quantisation, adapters=[options.phase1_ckpt, output])
        torch.manual_seed(options.seed)
        model, first = for_locations(foundation, options.phase1_ckpt)
        foundation.describe(output)
        collate = Collator(foundation.architecture, foundation.processor)
        losses = finetune(model, collate, train, validation, recipe, output, first)
    except (BadOption, BadTable, ModelError) as error:
        sys.exit(str(error))
    print(json.dumps({"validation_losses": losses, "adapter": str(output)}, indent=2))


def _kept_back(example: Example) -> bool:
    return hashlib.sha256(example.image.name.encode()).digest()[0] < 26


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m emx_training.finetune_phase2",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--csv", type=Path, required=True, help="image, term, xmin, ymin, xmax, ymax (0 to 1)")
    parser.add_argument("--images", type=Path, help="folder that the paths start from; default: the table's")
    parser.add_argument("--output", type=Path, required=True, help="folder of the adapter")
    parser.add_argument("--phase1_ckpt", type=Path, required=True, help="folder of phase 1's adapter")
    add_recipe_options(parser, epochs=30, patience=5)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
