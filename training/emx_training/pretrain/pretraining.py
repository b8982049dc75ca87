"""Pre-train the demo model's base: first a vision tower that locates findings, then text about them.

All stages share one loop. In a stage without text, only the tower learns, from dense masks and boxes. In a stage
with text, the whole model learns to write lists of findings or reports.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Gemma3ForConditionalGeneration

from emx_shared.grammar import LocatedFinding
from emx_training.data.phantom_reports import in_order
from emx_training.losses import soft_cross_entropy
from emx_training.pretrain.dense_targets import DenseHeads
from emx_training.pretrain.muon import Muon
from emx_training.pretrain.phantom_batches import AnswerTokens, PhantomBatch, PhantomBatches
from emx_training.pretrain.tokenizer import FIRST_LOC
from emx_training.resumable import load_state, restore_weights, save_state, write_curve

BATCH = 32
"""Phantoms for each update."""
_WARM_UP = 60
"""Steps over which the learning rate rises."""

_REPORT_EVERY = 100
"""Steps between two points of the learning curve, whose last point is the last step."""

_SAVE_SECONDS = 120.0

LOSS_NAMES = ("words", "locations", "masks", "presence", "edges")
LOCATION_WEIGHT = 0.5
DENSE_WEIGHTS = (1.0, 0.5, 0.7)
"""Weights of the losses of locations, and of masks, presence and edges; that of words is 1."""


@dataclass(frozen=True)
class Stage:
    """A part of the pre-training.

    Attributes:
        name: of the stage and its files.
        steps: updates of ``BATCH`` phantoms each.
        rate: peak learning rate, in Adam's scale.
        dense: weight of the dense losses.
        softness: bins over which a true location is spread at the start and at the end; None without text.
        decay: share of the steps, at the end, over which the rate falls towards 0; before them it is constant.
        rare: how many times as often a phantom with a small finding is shown.
    """

    name: str
    steps: int
    rate: float
    dense: float
    softness: tuple[float, float] | None = None
    decay: float = 0.0
    rare: float = 1.0

    def rate_factor(self, done: float) -> float:
        """Return the factor of the learning rate once a share ``done`` of the stage, 0 to 1, is over."""
        return min(1.0, max(1 - done, 0.01) / self.decay) if self.decay else 1.0


def caption(findings: Sequence[LocatedFinding]) -> str:
    """Return a bare list of findings with their boxes, in the report's order."""
    return "; ".join(map(str, in_order(findings))) or "none"


@dataclass
class PretrainingRun:
    """A stage in progress, with everything that it needs to resume after an interruption.

    Attributes:
        model: the whole model; a stage without text changes only its vision tower.
        heads: the tower's heads for dense targets.
        stage: how to train.
        optimizers: of the parameters that the stage changes.
        step: finished updates.
        elapsed: seconds of training so far.
        curve: one entry for each ``_REPORT_EVERY`` steps, and one for the last.
    """

    model: Gemma3ForConditionalGeneration
    heads: DenseHeads
    stage: Stage
    optimizers: list[torch.optim.Optimizer] = field(init=False)
    step: int = 0
    elapsed: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.optimizers = _optimizers(self.trained(), self.stage.rate)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that this stage changes, by name."""
        model: nn.Module = self.model if self.stage.softness else self.model.model.vision_tower
        named = {f"model.{name}": weight for name, weight in model.named_parameters()}
        return named | {f"heads.{name}": weight for name, weight in self.heads.named_parameters()}

    def save(self, folder: Path) -> None:
        """Write the state and the learning curve to ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "weights": {name: weight.detach() for name, weight in self.trained().items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "elapsed": self.elapsed,
            "curve": self.curve,
        }
        save_state(state, folder / f"{self.stage.name}.pt")
        write_curve(self.curve, folder / f"{self.stage.name}-curve.json")

    def restore(self, folder: Path) -> None:
        """Resume from the state in ``folder``, if there is one."""
        state = load_state(folder / f"{self.stage.name}.pt")
        if state is None:
            return
        trained = self.trained()
        restore_weights(trained.values(), [state["weights"][name] for name in trained])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.elapsed, self.curve = state["step"], state["elapsed"], state["curve"]


def pretrain(
    run: PretrainingRun, phantom_batches: PhantomBatches, watched: PhantomBatches, work: Path, seed: int
) -> None:
    """Train until the stage's last step. The state is saved every two minutes and at the end.

    Args:
        run: the stage; it resumes from its state in ``work``, if there is one.
        phantom_batches: the phantoms to learn from.
        watched: the phantoms for the learning curve, which aren't trained on.
        work: folder of the state and the learning curve.
        seed: of the phantoms' order and exposure.
    """
    run.restore(work)
    columns = (
        TextColumn(run.stage.name), BarColumn(), TextColumn("step {task.completed} of {task.total}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    batches = phantom_batches.stream(BATCH, seed, run.step, run.stage.rare)
    recent: list[Tensor] = []
    saved = clock = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(run.stage.name, total=run.stage.steps, completed=run.step)
        while run.step < run.stage.steps:
            recent.append(_update(run, next(batches)))
            now = time.monotonic()
            run.elapsed, clock = run.elapsed + now - clock, now
            progress.update(bar, completed=run.step)
            if run.step % _REPORT_EVERY == 0 or run.step == run.stage.steps:
                run.curve.append(_curve_point(run, torch.stack(recent).mean(dim=0), watched))
                progress.console.print(json.dumps(run.curve[-1]), soft_wrap=True)
                recent.clear()
                clock = time.monotonic()
            if now - saved > _SAVE_SECONDS:
                run.save(work)
                saved = now
    run.save(work)


def losses(run: PretrainingRun, batch: PhantomBatch, softness: float | None) -> Tensor:
    """Return the losses of ``LOSS_NAMES``, (5,); those of words and locations are 0 in a stage without text."""
    seen = run.model.model.get_image_features(batch.pixel_values, return_dict=True)
    dense = run.heads.losses(seen.last_hidden_state, batch.dense)
    if batch.answers is None or softness is None:
        return torch.cat([dense.new_zeros(2), dense])
    return torch.cat([_text_losses(run.model, seen, batch.answers, softness), dense])


def _text_losses(
    model: Gemma3ForConditionalGeneration, seen: object, answers: AnswerTokens, softness: float
) -> Tensor:
    """Return the losses of words and of locations, (2,)."""
    logits = model(
        input_ids=answers.input_ids,
        token_type_ids=answers.token_type_ids,
        mm_encoder_outputs={"image": seen},
        logits_to_keep=answers.labels.shape[1] + 1,
        use_cache=False,
    ).logits[:, :-1]
    is_location = answers.labels >= FIRST_LOC
    is_word = (answers.labels >= 0) & ~is_location
    words = F.cross_entropy(logits[is_word], answers.labels[is_word])
    if not is_location.any():
        return torch.stack([words, words.new_zeros(())])
    locations = soft_cross_entropy(
        logits[is_location], answers.labels[is_location] - FIRST_LOC, softness, FIRST_LOC
    )
    return torch.stack([words, locations])


def _update(run: PretrainingRun, batch: PhantomBatch) -> Tensor:
    """Take one step of the optimizers and return the batch's losses."""
    done = run.step / run.stage.steps
    scale = min(1.0, (run.step + 1) / _WARM_UP) * run.stage.rate_factor(done)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * scale
    run.model.train()
    parts = losses(run, batch, _softness(run.stage, done))
    dense = run.stage.dense
    weights = parts.new_tensor([1.0, LOCATION_WEIGHT, *(dense * weight for weight in DENSE_WEIGHTS)])
    for optimizer in run.optimizers:
        optimizer.zero_grad()
    torch.autograd.backward(parts @ weights)
    nn.utils.clip_grad_norm_(list(run.trained().values()), 5.0)
    for optimizer in run.optimizers:
        optimizer.step()
    run.step += 1
    return parts.detach()


def _softness(stage: Stage, done: float) -> float | None:
    """Return the softness once a share ``done`` of the stage is over: it shrinks by a constant factor."""
    if stage.softness is None:
        return None
    wide, narrow = stage.softness
    softness: float = wide * (narrow / wide) ** done
    return softness


@torch.no_grad()
def _curve_point(run: PretrainingRun, recent: Tensor, watched: PhantomBatches) -> dict[str, float]:
    """Return a point of the learning curve: recent mean losses, and those on phantoms that aren't trained on."""
    run.model.eval()
    count = len(watched.phantoms)
    parts = [
        losses(run, watched.batch(torch.arange(at, min(at + BATCH, count)).numpy()), _softness(run.stage, 1.0))
        for at in range(0, count, BATCH)
    ]
    now = torch.stack(parts).mean(dim=0)
    return {
        "step": run.step,
        "minutes": round(run.elapsed / 60, 2),
        **{name: round(value, 4) for name, value in zip(LOSS_NAMES, recent.tolist(), strict=True)},
        **{f"watched_{name}": round(value, 4) for name, value in zip(LOSS_NAMES, now.tolist(), strict=True)},
    }


def _optimizers(named: dict[str, nn.Parameter], rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the layers' matrices, and Adam for embeddings, heads and vectors."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in named.items():
        is_layer = weight.ndim == 2 and ".layers." in name and not name.startswith("heads.")
        (matrices if is_layer else others).append(weight)
    return [
        Muon([{"params": matrices, "peak": rate}], lr=rate, weight_decay=0.02),
        torch.optim.AdamW([{"params": others, "peak": rate}], lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
