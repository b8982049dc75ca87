"""The training loop that both phases share.

A plain loop over accelerate: two losses and an exact resume are its whole content, and a trainer class would hide
them in callbacks.
"""

import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from peft import PeftModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from emx_shared.grammar import LOC_BINS
from emx_training.data.tables import BadTable
from emx_training.finetune.collator import Collator, ExampleBatch
from emx_training.finetune.examples import Example
from emx_training.finetune.lora import compute_dtype, processes
from emx_training.finetune.training_options import BadOption, TrainingOptions
from emx_training.losses import IGNORED, soft_cross_entropy
from emx_training.resumable import load_state, restore_weights, save_state, write_curve

SOFTNESS = 8.0
"""Standard deviation, in bins, of the Gaussian that a true location is spread into."""

STATE, CURVE = "state.pt", "curve.json"
"""Files in a run's folder: the state to resume from, and the learning curve."""


class TrainingDiverged(RuntimeError):
    """The loss isn't finite any more."""


@dataclass
class RunPosition:
    """How far a run is.

    Attributes:
        epoch: finished epochs.
        step: finished updates of the current epoch.
        seconds: training time so far, including the runs that this one resumes.
        learned: sum of the training losses of the current epoch.
        losses: validation loss of each finished epoch.
        curve: losses of each finished epoch, and the minutes until its end.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    learned: float = 0.0
    losses: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)


def finetune(
    model: PeftModel,
    collate: Collator,
    train: Sequence[Example],
    validation: Sequence[Example],
    options: TrainingOptions,
    output: Path,
    first_location: int | None = None,
) -> list[float]:
    """Train an adapter and leave the best epoch's in ``output``.

    A run that was killed resumes from its last state, with the same examples in the same order, and ends with the
    same weights as a run that was left alone.

    Args:
        model: the model with the adapter; its parameters that require gradients are trained.
        collate: makes the model's batches.
        train: the examples to learn from.
        validation: the examples by which the best epoch is chosen.
        options: how to train.
        output: folder of the adapter, the state and the learning curve.
        first_location: id of ``<loc0000>``, to judge locations by their distance; None to judge them as words.

    Returns:
        The validation loss of each epoch.

    Raises:
        BadOption: if ``output`` has the state of a run with other settings.
        BadTable: if an image is damaged.
        TrainingDiverged: if the loss isn't finite any more.
    """
    run = FinetuningRun(model, collate, len(train), options, output, first_location)
    run.resume()
    at = run.at
    with _bar(run.accelerator) as progress:
        bar = progress.add_task("Training", total=run.total_steps, completed=run.steps_done, loss=math.nan)
        while at.epoch < options.epochs and not _stalled(at, options.patience):
            for batches in run.remaining_updates(train):
                loss = run.update(batches)
                progress.update(bar, advance=1, loss=loss)
                if at.step % options.save_every == 0:
                    run.save()
            run.finish_epoch(run.validate(validation))
            progress.console.print(f"epoch {at.epoch}: validation loss {at.losses[-1]:.4f}")
            run.save()
    return at.losses


class FinetuningRun:
    """One run of a phase, which can be interrupted after any update and resumed exactly.

    Attributes:
        accelerator: the processes that train together.
        total_steps: updates of all epochs.
        at: how far the run is.
    """

    def __init__(
        self,
        model: PeftModel,
        collate: Collator,
        examples: int,
        options: TrainingOptions,
        output: Path,
        first_location: int | None,
    ) -> None:
        processes()
        precision = "bf16" if compute_dtype() == torch.bfloat16 else "no"
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=precision)
        self.at = RunPosition()
        self._collate, self._options, self._output, self._first_location = collate, options, output, first_location
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(self._parameters, lr=options.rate, weight_decay=0.01)
        self._examples = examples
        span = options.batch * options.accumulate * self.accelerator.num_processes
        self._steps_per_epoch: int = math.ceil(examples / span)
        self.total_steps = self._steps_per_epoch * options.epochs
        self._schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, self.total_steps))
        self._model, self._optimizer = self.accelerator.prepare(model, optimizer)
        self._clock = time.monotonic()

    @property
    def steps_done(self) -> int:
        """Return the number of updates so far."""
        return self.at.epoch * self._steps_per_epoch + self.at.step

    def remaining_updates(self, examples: Sequence[Example]) -> Iterator[list[ExampleBatch]]:
        """Yield this process's batches of each update of the current epoch, from ``at.step`` on."""
        self._model.train()
        order = list(range(len(examples)))
        random.Random(f"{self._options.seed} {self.at.epoch}").shuffle(order)
        share = self._options.batch * self._options.accumulate
        span = share * self.accelerator.num_processes
        chosen: list[list[int]] = []
        for start in range(self.at.step * span, len(order), span):
            mine = order[start : start + span][self.accelerator.process_index :: self.accelerator.num_processes]
            chosen.append(mine or order[:1])  # the last span may leave a process without examples
        sizes = [math.ceil(len(mine) / self._options.batch) for mine in chosen]
        batches = self._loaded(examples, [part for mine in chosen for part in self._batches(mine)])
        for size in sizes:
            yield list(islice(batches, size))

    def update(self, batches: Sequence[ExampleBatch]) -> float:
        """Take one step of the optimiser on batches whose losses are averaged by token; return the loss.

        Raises:
            TrainingDiverged: if the loss isn't finite any more.
        """
        # Seeded by the step alone, so that a resumed run needs no generator's state.
        torch.manual_seed(self._options.seed + self.steps_done)
        weights = self._weights(batches)
        total = 0.0
        for number, batch in enumerate(batches, start=1):
            is_last = number == len(batches)
            with nullcontext() if is_last else self.accelerator.no_sync(self._model):
                loss = self._loss(batch) @ weights
                self.accelerator.backward(loss)
            total += loss.item()
        total = float(self.accelerator.reduce(torch.tensor(total, device=weights.device), "mean"))
        if not math.isfinite(total):
            raise TrainingDiverged("The loss isn't a number any more: lower --lr, or look for broken images.")
        self.accelerator.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        self.at.step += 1
        self.at.learned += total
        now = time.monotonic()
        self.at.seconds, self._clock = self.at.seconds + now - self._clock, now
        return total

    @torch.no_grad()
    def validate(self, examples: Sequence[Example]) -> float:
        """Return the loss of examples that aren't trained on, averaged by token; the processes share them."""
        self._model.eval()
        mine = range(self.accelerator.process_index, len(examples), self.accelerator.num_processes)
        total, counted = torch.zeros(2, device=self.accelerator.device), torch.zeros(2)
        for batch in self._loaded(examples, self._batches(list(mine))):
            total += self._loss(batch)
            counted += self._counts(batch)
        total = self.accelerator.reduce(total, "sum")
        counted = self.accelerator.reduce(counted.to(total.device), "sum")
        return float((total / counted.clamp_min(1)).sum())

    def _batches(self, indices: list[int]) -> list[list[int]]:
        size = self._options.batch
        return [indices[at : at + size] for at in range(0, len(indices), size)]

    def _loaded(self, examples: Sequence[Example], batches: list[list[int]]) -> Iterator[ExampleBatch]:
        """Yield batches of examples in order, decoded ahead by the options' workers. Raises BadTable."""
        workers, on_gpu = self._options.workers, self.accelerator.device.type == "cuda"
        loader: DataLoader[Example] = DataLoader(
            list(examples),  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=partial(_collated, self._collate),
            num_workers=workers,
            multiprocessing_context="spawn" if workers else None,
            pin_memory=on_gpu,
        )
        for batch in loader:
            if isinstance(batch, BadTable):
                raise batch
            yield batch.to(self.accelerator.device)

    def _weights(self, batches: Sequence[ExampleBatch]) -> Tensor:
        """Return by what an update's summed losses are multiplied, so that each of its tokens weighs the same.

        The gradients of several processes are averaged, hence the factor.
        """
        counted = sum((self._counts(batch) for batch in batches), torch.zeros(2)).to(self.accelerator.device)
        total: Tensor = self.accelerator.reduce(counted, "sum")
        weights: Tensor = self.accelerator.num_processes / total.clamp_min(1)
        return weights

    def _counts(self, batch: ExampleBatch) -> Tensor:
        """Return how many words and how many locations are trained, (2,)."""
        is_word, is_location = _kinds(batch, self._first_location)
        return torch.stack([is_word.sum(), is_location.sum()]).float().cpu()

    def _loss(self, batch: ExampleBatch) -> Tensor:
        """Compute the summed cross-entropies of words, and of locations to a Gaussian about the true bin: (2,)."""
        logits = self._model(
            pixel_values=batch.pixel_values,
            input_ids=batch.input_ids,
            token_type_ids=batch.token_type_ids,
            attention_mask=batch.attention_mask,
            logits_to_keep=batch.labels.shape[1] + 1,
            use_cache=False,
        ).logits[:, :-1]  # fmt: skip
        is_word, is_location = _kinds(batch, self._first_location)
        words = F.cross_entropy(logits[is_word].float(), batch.labels[is_word], reduction="sum")
        if self._first_location is None or not is_location.any():
            return torch.stack([words, words.new_zeros(())])
        bins = batch.labels[is_location] - self._first_location
        far = soft_cross_entropy(logits[is_location].float(), bins, SOFTNESS, self._first_location)
        return torch.stack([words, far * len(bins)])

    def finish_epoch(self, validation_loss: float) -> None:
        """Record an epoch's losses, and save its adapter if it is the best so far."""
        at, is_main = self.at, self.accelerator.is_main_process
        at.losses.append(validation_loss)
        if validation_loss <= min(at.losses) and is_main:
            self.accelerator.unwrap_model(self._model).save_pretrained(self._output, save_embedding_layers=False)
        minutes = round((at.seconds + time.monotonic() - self._clock) / 60, 2)
        at.curve.append({"train": at.learned / at.step, "validation": validation_loss, "minutes": minutes})
        at.epoch, at.step, at.learned = at.epoch + 1, 0, 0.0
        if is_main:
            write_curve(at.curve, self._output / CURVE)

    def _settings(self) -> dict[str, float]:
        """Return what a run that resumes must have in common with the one before, by the option's name."""
        options = self._options
        return {
            "--epochs": options.epochs,
            "--lr": options.rate,
            "--batch": options.batch,
            "--accumulate": options.accumulate,
            "--seed": options.seed,
            "processes": self.accelerator.num_processes,
            "examples": self._examples,
        }

    def save(self) -> None:
        """Write the trained weights and the position. The frozen base isn't part of the state."""
        if self.accelerator.is_main_process:
            state = {
                "weights": [parameter.detach().cpu() for parameter in self._parameters],
                "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
                "at": vars(self.at),
                "settings": self._settings(),
            }
            save_state(state, self._output / STATE)
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Continue from the state in the output folder, if there is one.

        Raises:
            BadOption: if the state belongs to a run with other settings.
        """
        file = self._output / STATE
        if state := load_state(file):
            before, now = state.get("settings", {}), self._settings()
            if changed := next((name for name in now if before.get(name) != now[name]), None):
                raise BadOption(
                    f"{self._output} has a run with {changed} {before.get(changed, 'unknown')}, and this one has "
                    f"{now[changed]}: give the same, or choose another --output."
                )
            if [weight.shape for weight in state["weights"]] != [weight.shape for weight in self._parameters]:
                raise BadOption(
                    f"{file} belongs to a run with other settings: choose another --output, or delete the file."
                )
            restore_weights(self._parameters, state["weights"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._schedule.load_state_dict(state["schedule"])
            vars(self.at).update(state["at"])
            self.accelerator.print(f"Resuming at epoch {self.at.epoch + 1}, step {self.at.step}.")
        self._clock = time.monotonic()


def _collated(collate: Collator, examples: Sequence[Example]) -> ExampleBatch | BadTable:
    """Return the batch; or the error, whose message a worker process would bury in its own."""
    try:
        return collate(examples)
    except BadTable as error:
        return error


def _kinds(batch: ExampleBatch, first_location: int | None) -> tuple[Tensor, Tensor]:
    """Return where the loss falls on words and where on locations, (batch, answer) each."""
    trained = batch.labels != IGNORED
    if first_location is None:
        return trained, torch.zeros_like(trained)
    is_location = (batch.labels >= first_location) & (batch.labels < first_location + LOC_BINS)
    return trained & ~is_location, is_location


def _rate(step: int, total: int) -> float:
    """Return the factor of the peak learning rate at a step."""
    warm_up = max(1, round(0.03 * total))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, total - warm_up))))


def _stalled(at: RunPosition, patience: int) -> bool:
    """Return whether the best epoch is more than ``patience`` epochs ago."""
    return len(at.losses) > patience and min(at.losses[-patience:]) > min(at.losses)


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
