"""Phase 1: an adapter that writes report text. The vision tower is frozen, and the loss falls on the answer alone.

``python -m training.finetune_phase1 --csv data/padchest/train.csv --images data/padchest --output runs/phase1``

The validation table is ``validation.csv`` beside the training table, with other patients, as dataset_prep writes
it. A run that was interrupted goes on when it is started again with the same ``--output``. Several GPUs:
``accelerate launch -m training.finetune_phase1 …``
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from training.adapting import for_reports, load_base
from training.dataset.study import BadTable
from training.examples import Collator, read_reports
from training.finetuning import Recipe, finetune
from worker.checkpoint import ModelError


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    try:
        train = read_reports(options.csv, options.images)
        validation = read_reports(options.validation or options.csv.with_name("validation.csv"), options.images)
        base, processor = load_base(options.base, options.quantisation)
    except (BadTable, ModelError) as error:
        sys.exit(str(error))
    options.output.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(options.epochs, options.lr, options.batch, options.patience, options.save_every, options.seed)
    torch.manual_seed(options.seed)
    model = for_reports(base, options.lora_r)
    losses = finetune(model, Collator(processor), train, validation, recipe, options.output)
    processor.tokenizer.save_pretrained(options.output)
    print(json.dumps({"validation_losses": losses, "adapter": str(options.output)}, indent=2))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.finetune_phase1",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--csv", type=Path, required=True, help="training table: image, findings, impression")
    parser.add_argument("--images", type=Path, required=True, help="folder that the table's paths start from")
    parser.add_argument("--validation", type=Path, help="validation table; default: validation.csv beside --csv")
    parser.add_argument("--output", type=Path, required=True, help="folder of the adapter")
    parser.add_argument("--base", default="google/medgemma-4b-it", help="checkpoint directory or hub id")
    parser.add_argument("--quantisation", choices=("auto", "nf4", "none"), default="auto")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--lora_r", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8, help="examples for each update and process")
    parser.add_argument("--patience", type=int, default=3, help="epochs without a better validation loss")
    parser.add_argument("--save_every", type=int, default=200, help="updates between saved states")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
