"""Phase 1: an adapter that writes report text. The vision tower is frozen, and the loss falls on the answer alone.

``python -m emx_training.finetune_phase1 --csv padchest/train.csv --images padchest --output runs/phase1``

The validation table is ``validation.csv`` beside the training table, with other patients, as dataset_prep writes
it. A run that was interrupted goes on when it is started again with the same ``--output``. Several GPUs:
``accelerate launch -m emx_training.finetune_phase1 …``
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from emx_training.data.source_image import BadTable
from emx_training.finetune.adapting import for_reports, load_base
from emx_training.finetune.examples import Collator, read_reports
from emx_training.finetune.loop import BadOption, add_recipe_options, finetune, folder_of, recipe_of
from emx_worker.model.checkpoint import ModelError


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    try:
        recipe, output = recipe_of(options), folder_of(options.output)
        train = read_reports(options.csv, options.images)
        validation = read_reports(options.validation or options.csv.with_name("validation.csv"), options.images)
        foundation = load_base(options.base, options.quantisation, adapters=[output])
        torch.manual_seed(options.seed)
        model = for_reports(foundation, options.lora_r)
        foundation.describe(output)
        collate = Collator(foundation.architecture, foundation.processor)
        losses = finetune(model, collate, train, validation, recipe, output)
    except (BadOption, BadTable, ModelError) as error:
        sys.exit(str(error))
    print(json.dumps({"validation_losses": losses, "adapter": str(output)}, indent=2))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m emx_training.finetune_phase1",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--csv", type=Path, required=True, help="training table: image, findings, impression")
    parser.add_argument("--images", type=Path, required=True, help="folder that the table's paths start from")
    parser.add_argument("--validation", type=Path, help="validation table; default: validation.csv beside --csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the adapter")
    parser.add_argument("--lora_r", type=int, default=64)
    add_recipe_options(parser, epochs=8, patience=3)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
