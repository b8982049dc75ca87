"""Phase 1: train an adapter that writes report text.

The vision tower is frozen, and the loss falls on the answer only.

``python -m emx_training.finetune_phase1 --csv padchest/train.csv --images padchest --output runs/phase1``

The validation table is ``validation.csv`` beside the training table, with other patients, as dataset_prep writes
it. To resume an interrupted run, start it again with the same ``--output``. To train on several GPUs:
``accelerate launch -m emx_training.finetune_phase1 …``
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from emx_training.data.tables import BadTable
from emx_training.finetune.collator import Collator
from emx_training.finetune.examples import read_reports
from emx_training.finetune.feature_cache import cache_features
from emx_training.finetune.loop import TrainingDiverged, finetune
from emx_training.finetune.lora import load_base, report_adapter
from emx_training.finetune.training_options import (
    BadOption,
    add_training_options,
    output_folder,
    training_options_of,
)
from emx_worker.model.checkpoint import ModelError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = _options(arguments)
    try:
        chosen, output = training_options_of(options), output_folder(options.output)
        train = read_reports(options.csv, options.images)
        validation = read_reports(options.validation or options.csv.with_name("validation.csv"), options.images)
        base = load_base(options.base, options.quantisation, adapters=[output])
        torch.manual_seed(options.seed)
        model = report_adapter(base, options.lora_r)
        if options.cache_features:
            cache_features(model, base.base, output_folder(options.cache_features))
        base.describe(output)
        collate = Collator(base.architecture, base.processor)
        losses = finetune(model, collate, train, validation, chosen, output)
    except (BadOption, BadTable, ModelError, TrainingDiverged) as error:
        sys.exit(str(error))
    print(json.dumps({"validation_losses": losses, "adapter": str(output)}, indent=2))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m emx_training.finetune_phase1",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--csv", type=Path, required=True, help="training table: image, findings, impression")
    parser.add_argument("--images", type=Path, required=True, help="folder that the tables' paths start from")
    parser.add_argument("--validation", type=Path, help="validation table; default: validation.csv beside --csv")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the adapter to")
    parser.add_argument(
        "--cache_features",
        type=Path,
        metavar="DIR",
        help="keep what the frozen tower makes of each image, so that it runs in the first epoch only; 1.3 MB an "
        "image for MedGemma-4B",
    )
    parser.add_argument("--lora_r", type=int, default=64, help="rank of the adapter")
    add_training_options(parser, epochs=8, patience=3)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
