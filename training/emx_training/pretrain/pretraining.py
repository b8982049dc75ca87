"""The demo model's base, from random weights: a vision tower that knows where findings are, then words for them.

Stages of one loop, of two kinds: without words, the tower alone learns dense masks and boxes; with words, the
whole model learns to write lists of findings, or reports.
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
from emx_training.pretrain.phantom_batches import Batch, Lessons, Words
from emx_training.pretrain.tokenizer import FIRST_LOC

BATCH = 32
_WARM_UP = 60
"""Steps over which the learning rate rises."""

_REPORT_EVERY, _SAVE_SECONDS = 100, 120.0
LOCATION_WEIGHT = 0.5
DENSE_WEIGHTS = (1.0, 0.5, 0.7)
"""Of masks, presence and edges."""


@dataclass(frozen=True)
class Stage:
    """A part of the pre-training.

    Attributes:
        name: of its files.
        steps: updates of ``BATCH`` phantoms each.
        rate: peak learning rate, in Adam's scale.
        dense: weight of the dense losses.
        decay: share of the steps, at the end, over which the rate falls to nothing; before, it stays the same.
        rare: how many times as often a phantom with a small finding is shown.
        softness: bins that a true location is spread over at the start and at the end; None without words.
    """

    name: str
    steps: int
    rate: float
    dense: float
    softness: tuple[float, float] | None = None
    decay: float = 0.0
    rare: float = 1.0

    def slower(self, done: float) -> float:
        """What the rate is multiplied with when ``done``, 0 to 1, of the stage is over."""
        return min(1.0, max(1 - done, 0.01) / self.decay) if self.decay else 1.0


def caption(findings: Sequence[LocatedFinding]) -> str:
    """A bare list of findings with their boxes, in the report's order."""
    return "; ".join(map(str, in_order(findings))) or "none"


@dataclass
class Run:
    """A stage under way, and all it needs to go on after an interruption.

    Attributes:
        elapsed: seconds of training so far.
        curve: one entry for each 50 steps.
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
        """The parameters that this stage changes, by name."""
        model: nn.Module = self.model if self.stage.softness else self.model.model.vision_tower
        named = {f"model.{name}": weight for name, weight in model.named_parameters()}
        return named | {f"heads.{name}": weight for name, weight in self.heads.named_parameters()}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{self.stage.name}.part"
        state = {
            "weights": {name: weight.detach() for name, weight in self.trained().items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "elapsed": self.elapsed,
            "curve": self.curve,
        }
        torch.save(state, part)
        part.replace(folder / f"{self.stage.name}.pt")
        curve = folder / f"{self.stage.name}-curve.json"
        curve.write_text(json.dumps(self.curve, indent=1) + "\n", encoding="utf-8")

    def restore(self, folder: Path) -> None:
        """Go on from the state in ``folder``, if there is one."""
        path = folder / f"{self.stage.name}.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        with torch.no_grad():
            for name, weight in self.trained().items():
                weight.copy_(state["weights"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.elapsed, self.curve = state["step"], state["elapsed"], state["curve"]


def pretrain(run: Run, lessons: Lessons, watched: Lessons, work: Path, seed: int) -> None:
    """Train until the stage's last step; the state is saved every two minutes, and at the end."""
    run.restore(work)
    columns = (
        TextColumn(run.stage.name), BarColumn(), TextColumn("step {task.completed} of {task.total}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    batches = lessons.batches(BATCH, seed, run.step, run.stage.rare)
    recent: list[Tensor] = []
    saved = clock = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(run.stage.name, total=run.stage.steps, completed=run.step)
        while run.step < run.stage.steps:
            recent.append(_update(run, next(batches)))
            now = time.monotonic()
            run.elapsed, clock = run.elapsed + now - clock, now
            progress.update(bar, completed=run.step)
            if run.step % _REPORT_EVERY == 0:
                run.curve.append(_entry(run, torch.stack(recent).mean(dim=0), watched))
                progress.console.print(json.dumps(run.curve[-1]), soft_wrap=True)
                recent.clear()
                clock = time.monotonic()
            if now - saved > _SAVE_SECONDS:
                run.save(work)
                saved = now
    run.save(work)


LOSS_NAMES = ("words", "locations", "masks", "presence", "edges")


def losses(run: Run, batch: Batch, softness: float | None) -> Tensor:
    """The five losses of ``LOSS_NAMES``; those of words are 0 in a stage without."""
    seen = run.model.model.get_image_features(batch.pixel_values, return_dict=True)
    dense = run.heads.losses(seen.last_hidden_state, batch.dense)
    if batch.words is None or softness is None:
        return torch.cat([dense.new_zeros(2), dense])
    return torch.cat([_word_losses(run.model, seen, batch.words, softness), dense])


def _word_losses(model: Gemma3ForConditionalGeneration, seen: object, words: Words, softness: float) -> Tensor:
    logits = model(
        input_ids=words.input_ids,
        token_type_ids=words.token_type_ids,
        mm_encoder_outputs={"image": seen},
        logits_to_keep=words.labels.shape[1] + 1,
        use_cache=False,
    ).logits[:, :-1]
    is_location = words.labels >= FIRST_LOC
    is_word = (words.labels >= 0) & ~is_location
    told = F.cross_entropy(logits[is_word], words.labels[is_word])
    if not is_location.any():
        return torch.stack([told, told.new_zeros(())])
    placed = soft_cross_entropy(logits[is_location], words.labels[is_location] - FIRST_LOC, softness, FIRST_LOC)
    return torch.stack([told, placed])


def _update(run: Run, batch: Batch) -> Tensor:
    done = run.step / run.stage.steps
    scale = min(1.0, (run.step + 1) / _WARM_UP) * run.stage.slower(done)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * scale
    run.model.train()
    parts = losses(run, batch, _softness(run.stage, done))
    dense = run.stage.dense
    weights = parts.new_tensor([1.0, LOCATION_WEIGHT, *(dense * weight for weight in DENSE_WEIGHTS)])
    for optimizer in run.optimizers:
        optimizer.zero_grad()
    (parts @ weights).backward()
    nn.utils.clip_grad_norm_(list(run.trained().values()), 5.0)
    for optimizer in run.optimizers:
        optimizer.step()
    run.step += 1
    return parts.detach()


def _softness(stage: Stage, done: float) -> float | None:
    if stage.softness is None:
        return None
    wide, narrow = stage.softness
    return wide * (narrow / wide) ** done


@torch.no_grad()
def _entry(run: Run, recent: Tensor, watched: Lessons) -> dict[str, float]:
    """A point of the learning curve: mean losses of late, and those on phantoms that are watched only."""
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
    """Muon for the layers' matrices, Adam for embeddings, heads and vectors."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in named.items():
        is_layer = weight.ndim == 2 and ".layers." in name and not name.startswith("heads.")
        (matrices if is_layer else others).append(weight)
    return [
        Muon([{"params": matrices, "peak": rate}], lr=rate, weight_decay=0.02),
        torch.optim.AdamW([{"params": others, "peak": rate}], lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
