"""The loop that both phases share.

A plain one over accelerate: two losses and an exact resume are its whole content, and a trainer class would hide
them in callbacks.
"""

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn import functional as F

from emx_shared.grammar import LOC_BINS
from emx_training.finetune.examples import IGNORED, Batch, Collator, Example
from emx_training.pretrain.phantom_batches import soft_cross_entropy

SOFTNESS = 8.0
"""Standard deviation, in bins, of the Gaussian that a true location is spread into."""

STATE, CURVE = "state.pt", "curve.json"
"""Files in a run's folder: what it goes on from, and its learning curve."""


class BadOption(ValueError):
    """A run can't be as it was asked for; the text names the option."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        rate: peak learning rate; it warms up over the first 3 % of the steps and falls to 0 along a cosine.
        batch: examples for each update and process.
        patience: epochs without a lower validation loss after which training stops.
        save_every: updates between two states that can be gone on from.
    """

    epochs: int
    rate: float
    batch: int = 8
    patience: int = 3
    save_every: int = 200
    seed: int = 0


def add_recipe_options(parser: argparse.ArgumentParser, *, epochs: int, patience: int) -> None:
    """The options that both phases have; ``epochs`` and ``patience`` are this phase's defaults."""
    parser.add_argument("--base", default="google/medgemma-4b-it", help="checkpoint directory or hub id")
    parser.add_argument("--quantisation", choices=("auto", "nf4", "none"), default="auto")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--batch", type=int, default=8, help="examples for each update and process")
    parser.add_argument("--patience", type=int, default=patience, help="epochs without a better validation loss")
    parser.add_argument("--save_every", type=int, default=200, help="updates between saved states")
    parser.add_argument("--seed", type=int, default=0)


def recipe_of(options: argparse.Namespace) -> Recipe:
    """Raises BadOption for any number, of the recipe or the phase's own, that isn't above 0."""
    for name, value in vars(options).items():
        if isinstance(value, int | float) and name != "seed" and not 0 < value < math.inf:
            raise BadOption(f"--{name} must be above 0, and is {value}.")
    return Recipe(options.epochs, options.lr, options.batch, options.patience, options.save_every, options.seed)


def folder_of(output: Path) -> Path:
    """The adapter's folder, made where there is none. Raises BadOption."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadOption(f"--output {output} can't be made a folder ({error.strerror}): choose another.") from None
    return output


@dataclass
class Progressed:
    """Where a run is.

    Attributes:
        seconds: spent so far, also by runs that this one goes on from.
        learned: sum of the training losses of this epoch.
        losses: the validation loss of each finished epoch.
        curve: for each finished epoch its losses, and the minutes until then.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    learned: float = 0.0
    losses: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)


@dataclass
class _Run:
    """What a state is made of."""

    accelerator: Accelerator
    parameters: list[torch.nn.Parameter]
    optimizer: Any
    schedule: torch.optim.lr_scheduler.LambdaLR
    at: Progressed = field(default_factory=Progressed)


def finetune(
    model: PeftModel,
    collate: Collator,
    train: Sequence[Example],
    validation: Sequence[Example],
    recipe: Recipe,
    output: Path,
    first_location: int | None = None,
) -> list[float]:
    """Train the adapter's weights; the best epoch's adapter is left in ``output``. Returns the validation losses.

    A run that was killed goes on from its last state, with the same examples in the same order, as if nothing had
    happened. Where ``first_location`` is given, location tokens are judged by distance instead of by name.
    """
    accelerator = Accelerator()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=0.01)
    per_epoch = math.ceil(len(train) / recipe.batch / accelerator.num_processes)
    total = per_epoch * recipe.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total))
    prepared, optimizer = accelerator.prepare(model, optimizer)
    run = _Run(accelerator, parameters, optimizer, schedule)
    _resume(run, output)
    at, clock = run.at, time.monotonic()
    with _bar(accelerator) as progress:
        bar = progress.add_task("Training", total=total, completed=at.epoch * per_epoch + at.step, loss=math.nan)
        while at.epoch < recipe.epochs and not _stalled(at, recipe.patience):
            prepared.train()
            for batch in _batches(train, recipe, at, accelerator, collate):
                # From the step alone, so that a run that goes on needs to remember no generator.
                torch.manual_seed(recipe.seed + at.epoch * per_epoch + at.step)
                loss = _loss(prepared, batch, first_location)
                if not torch.isfinite(loss):
                    sys.exit("The loss isn't a number any more: lower --lr, or look for broken images.")
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                at.step += 1
                at.learned += loss.item()
                now = time.monotonic()
                at.seconds, clock = at.seconds + now - clock, now
                progress.update(bar, advance=1, loss=loss.item())
                if at.step % recipe.save_every == 0:
                    _save(run, output)
            loss_now = _validated(prepared, validation, recipe, accelerator, collate, first_location)
            at.losses.append(loss_now)
            if loss_now <= min(at.losses) and accelerator.is_main_process:
                accelerator.unwrap_model(prepared).save_pretrained(output, save_embedding_layers=False)
            minutes = round((at.seconds + time.monotonic() - clock) / 60, 2)
            at.curve.append({"train": at.learned / at.step, "validation": loss_now, "minutes": minutes})
            at.epoch, at.step, at.learned = at.epoch + 1, 0, 0.0
            if accelerator.is_main_process:
                (output / CURVE).write_text(json.dumps(at.curve, indent=1) + "\n", encoding="utf-8")
            progress.console.print(f"epoch {at.epoch}: validation loss {loss_now:.4f}")
            _save(run, output)
    return at.losses


def _loss(model: Any, batch: Batch, first_location: int | None) -> torch.Tensor:
    """Mean cross-entropy over the answer's tokens; over locations, that to a Gaussian about the true bin."""
    logits = model(
        pixel_values=batch.pixel_values,
        input_ids=batch.input_ids,
        token_type_ids=batch.token_type_ids,
        attention_mask=batch.attention_mask,
        logits_to_keep=batch.labels.shape[1] + 1,
        use_cache=False,
    ).logits[:, :-1].float()  # fmt: skip
    is_word = batch.labels != IGNORED
    if first_location is None:
        return F.cross_entropy(logits[is_word], batch.labels[is_word])
    is_location = (batch.labels >= first_location) & (batch.labels < first_location + LOC_BINS)
    words = F.cross_entropy(logits[is_word & ~is_location], batch.labels[is_word & ~is_location])
    if not is_location.any():
        return words
    bins = batch.labels[is_location] - first_location
    return words + soft_cross_entropy(logits[is_location], bins, SOFTNESS, first_location)


def _batches(
    examples: Sequence[Example], recipe: Recipe, at: Progressed, accelerator: Accelerator, collate: Collator
) -> Iterator[Batch]:
    """This process's share of an epoch in its own random order, from ``at.step`` on."""
    order = list(range(len(examples)))
    random.Random(f"{recipe.seed} {at.epoch}").shuffle(order)
    span = recipe.batch * accelerator.num_processes
    for start in range(at.step * span, len(order), span):
        mine = order[start : start + span][accelerator.process_index :: accelerator.num_processes]
        chosen = mine or order[: recipe.batch]  # the last span may leave a process with nothing
        yield collate([examples[index] for index in chosen]).to(accelerator.device)


@torch.no_grad()
def _validated(
    model: Any,
    examples: Sequence[Example],
    recipe: Recipe,
    accelerator: Accelerator,
    collate: Collator,
    first_location: int | None,
) -> float:
    model.eval()
    losses = [
        _loss(model, collate(examples[at : at + recipe.batch]).to(accelerator.device), first_location).item()
        for at in range(0, len(examples), recipe.batch)
    ]
    return sum(losses) / len(losses)


def _rate(step: int, total: int) -> float:
    warm_up = max(1, round(0.03 * total))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, total - warm_up))))


def _stalled(at: Progressed, patience: int) -> bool:
    return len(at.losses) > patience and min(at.losses[-patience:]) > min(at.losses)


def _save(run: _Run, output: Path) -> None:
    """What is trained and where it is, in one file that is replaced as a whole. The base is not in it."""
    if run.accelerator.is_main_process:
        part = output / f"{STATE}.part"
        state = {
            "weights": [parameter.detach().cpu() for parameter in run.parameters],
            "optimizer": run.optimizer.state_dict(),
            "schedule": run.schedule.state_dict(),
            "at": vars(run.at),
        }
        torch.save(state, part)
        part.replace(output / STATE)
    run.accelerator.wait_for_everyone()


def _resume(run: _Run, output: Path) -> None:
    if not (output / STATE).exists():
        return
    state = torch.load(output / STATE, map_location="cpu", weights_only=True)
    if [weight.shape for weight in state["weights"]] != [parameter.shape for parameter in run.parameters]:
        sys.exit(f"{output / STATE} is of a run with other settings: choose another --output, or delete it.")
    with torch.no_grad():
        for parameter, weight in zip(run.parameters, state["weights"], strict=True):
            parameter.copy_(weight)
    run.optimizer.load_state_dict(state["optimizer"])
    run.schedule.load_state_dict(state["schedule"])
    run.at = Progressed(**state["at"])
    run.accelerator.print(f"Going on from epoch {run.at.epoch + 1}, step {run.at.step}.")


def _bar(accelerator: Accelerator) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not accelerator.is_main_process,
    )
