"""The demo model's card: what the model is, how it was trained, and its measured figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emx_training.evaluate.intervals import Interval
from emx_training.evaluate.scoring import Scores
from emx_training.ood.abstention import AbstentionCounts

_FIGURES = {
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "mean_iou": "mean IoU of pairs",
    "match_accuracy": "match accuracy (finding, side, IoU ≥ 0.5)",
    "map50": "mean AP at IoU 0.5",
    "exact_findings": "images with all findings right",
    "parse_rate": "reports that parse",
    "flagged_rate": "phantoms declined",
    "token_accuracy": "token accuracy, teacher-forced",
}


@dataclass(frozen=True)
class TrainingRecord:
    """How a demo model was trained.

    Attributes:
        command: the command that makes it.
        seed: of the whole recipe.
        base_parameters, adapter_parameters: number of weights of each.
        stages: (name, what it learned from, minutes) of each step.
        threads: CPU threads that trained it.
    """

    command: str
    seed: int
    base_parameters: int
    adapter_parameters: int
    stages: Sequence[tuple[str, str, float]]
    threads: int


@dataclass(frozen=True)
class CardFigures:
    """What was measured of a demo model.

    Attributes:
        columns: scores with their intervals, by the column's title.
        constant: scores of the best constant report.
        abstention: which images that aren't phantoms were declined.
    """

    columns: Mapping[str, tuple[Scores, Mapping[str, Interval]]]
    constant: Scores
    abstention: AbstentionCounts


def model_card(record: TrainingRecord, measured: CardFigures, sample_seed: int, sample_size: int) -> str:
    """Return the card in Markdown, with the metadata block that model hubs read.

    Args:
        record: how the model was trained.
        measured: what was measured of it. The first column's scores are also listed by finding.
        sample_seed: the phantom in ``sample.png``.
        sample_size: pixels along each side of ``sample.png``.
    """
    heldout = next(iter(measured.columns.values()))[0]
    declined = measured.abstention
    return f"""---
license: mit
library_name: transformers
pipeline_tag: image-text-to-text
tags: [chest-radiograph, synthetic, research]
---

# ExplainMyXray demo model

**Research software, not for clinical use. This model knows computer-drawn phantoms only; it knows nothing about
real radiographs.** It lets you try the whole system without a download. It declines most images that aren't
phantoms; where it doesn't, its report means nothing.

A base of {record.base_parameters / 1e6:.2f} million parameters (`Gemma3ForConditionalGeneration`: SigLIP tower at
160 px, 64 image tokens, 1,024 location tokens, bf16, from random weights), and in `adapter/` a LoRA adapter of
{record.adapter_parameters / 1e6:.2f} million, with the projector and the location rows, kept apart as MedGemma's
would be. `guard.safetensors` has the statistics by which it declines images that aren't phantoms. Given an image
and the prompt in `emx.json`, it writes FINDINGS, LOCATIONS and IMPRESSION, and a box for each finding.

## How it was made

```
{record.command}
```

Seed {record.seed}, {record.threads} CPU threads. Steps, each with its own checkpoints:

| step | learned from | minutes |
|---|---|---|
{_stage_rows(record.stages)}

*vision* and *details* teach the tower masks and boxes through heads that are discarded; *captions* teaches the
whole base to write a bare list of findings, *reports*, *polish* and *fresh* whole reports; *phase1*, *phase2* are
`emx_training.finetune_phase1` and `emx_training.finetune_phase2`, the scripts that MedGemma is trained with.
`curve.json` has the learning curves, and `docs/results.md` the course of the run that made these weights. All
phantoms are of site *alpha*.

## Figures

As the worker serves it. 95 % intervals by bootstrap over images; `emx_training.evaluate.figures` defines the
figures. The constant is the best prediction without looking at the image: the set of terms with the highest
micro-F1 on training phantoms, with their mean boxes.

| | {" | ".join(measured.columns)} | best constant |
|---|{"---|" * (len(measured.columns) + 1)}
{_figure_rows(measured)}

Held out, in the first column's setting, by finding:

| finding | n | precision | recall | F1 | mean IoU |
|---|---|---|---|---|---|
{_term_rows(heldout)}

Of {declined.shown.total()} images that aren't phantoms it declined {declined.declined.total()}
({declined.rate:.1%}): {_declined(declined)}.

## Limits

- Phantoms aren't patients. Nothing here says anything about performance on radiographs.
- A held-out phantom comes from the same generator as those it learned from, and the unseen site from the same
  anatomy under other physics; the figures say that it learned the generator, no more.
- One finding of a kind on each side, at most four in all; an image with more is outside what it has seen.

`sample.png` is the held-out phantom of seed {sample_seed}, drawn at {sample_size} px. It was **chosen for
showing** among those that the model reads well; it is not typical.

License: MIT.
"""


def _stage_rows(stages: Sequence[tuple[str, str, float]]) -> str:
    return "\n".join(f"| {name} | {seen} | {minutes:.0f} |" for name, seen, minutes in stages)


def _figure_rows(measured: CardFigures) -> str:
    rows = []
    for name, title in _FIGURES.items():
        cells = []
        for scores, intervals in measured.columns.values():
            low, high = intervals.get(name, (None, None))
            value = scores.figures.get(name)
            cell = "" if value is None else f"{value:.3f}"
            cells.append(cell if low is None else f"{cell} ({low:.3f}–{high:.3f})")
        constant = measured.constant.figures.get(name)
        rows.append(f"| {title} | {' | '.join(cells)} | {'' if constant is None else f'{constant:.3f}'} |")
    return "\n".join(rows)


def _term_rows(scores: Scores) -> str:
    return "\n".join(
        f"| {term} | {counts.true_positives + counts.false_negatives} | {counts.precision:.3f} | "
        f"{counts.recall:.3f} | {counts.f1:.3f} | {scores.term_iou.get(term, 0):.3f} |"
        for term, counts in scores.terms.items()
    )


def _declined(found: AbstentionCounts) -> str:
    return ", ".join(f"{group} {found.declined[group]} of {count}" for group, count in found.shown.items())
