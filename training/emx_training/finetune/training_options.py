"""The options that both phases share."""

import argparse
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

_MAY_BE_ZERO = ("seed", "workers")


class BadOption(ValueError):
    """A run is impossible with these options. The message names the option."""


@dataclass(frozen=True)
class TrainingOptions:
    """How to train an adapter.

    Attributes:
        epochs: passes over the training table, at most.
        rate: peak learning rate; it warms up over the first 3 % of the steps and falls to 0 along a cosine.
        batch: examples of each forward pass and process.
        accumulate: forward passes for each update.
        workers: processes that decode images ahead; 0 decodes them as they are needed.
        patience: epochs without a lower validation loss after which training stops.
        save_every: updates between two saved states.
        seed: of the weights, the order of the examples and dropout.
    """

    epochs: int
    rate: float
    batch: int = 8
    accumulate: int = 1
    workers: int = 0
    patience: int = 3
    save_every: int = 200
    seed: int = 0


def add_training_options(parser: argparse.ArgumentParser, *, epochs: int, patience: int) -> None:
    """Add the shared options to a phase's parser, with the phase's defaults for ``epochs`` and ``patience``."""
    parser.add_argument("--base", default="google/medgemma-4b-it", help="checkpoint directory or hub id")
    parser.add_argument(
        "--quantisation", choices=("auto", "nf4", "none"), default="auto", help="of the base; auto is nf4 on CUDA"
    )
    parser.add_argument("--epochs", type=int, default=epochs, help="passes over the training table, at most")
    parser.add_argument("--lr", type=float, default=5e-5, help="peak learning rate")
    parser.add_argument("--batch", type=int, default=8, help="examples of each forward pass and process")
    parser.add_argument(
        "--accumulate",
        type=int,
        default=1,
        help="forward passes for each update: a larger batch in no more memory",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=_workers(),
        help="processes that decode images ahead, default here: %(default)s",
    )
    parser.add_argument(
        "--patience", type=int, default=patience, help="epochs without a lower validation loss before it stops"
    )
    parser.add_argument("--save_every", type=int, default=200, help="updates between saved states")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and dropout")


def training_options_of(options: argparse.Namespace) -> TrainingOptions:
    """Validate a phase's options.

    Raises:
        BadOption: if any number, shared or the phase's own, isn't above 0.
    """
    for name, value in vars(options).items():
        if isinstance(value, int | float) and name not in _MAY_BE_ZERO and not 0 < value < math.inf:
            raise BadOption(f"--{name} must be above 0, and is {value}.")
    if options.workers < 0:
        raise BadOption(f"--workers must be 0 or more, and is {options.workers}.")
    return TrainingOptions(
        epochs=options.epochs,
        rate=options.lr,
        batch=options.batch,
        accumulate=options.accumulate,
        workers=options.workers,
        patience=options.patience,
        save_every=options.save_every,
        seed=options.seed,
    )


def _workers() -> int:
    """Return a number that keeps a GPU busy; without one, decoding costs next to nothing of a step."""
    return min(4, os.cpu_count() or 1) if torch.cuda.is_available() else 0


def output_folder(output: Path) -> Path:
    """Create the adapter's folder unless it exists, and return it.

    Raises:
        BadOption: if the folder can't be created.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOption(f"--output {output} can't be created ({error.strerror}): choose another folder.") from None
    return output
