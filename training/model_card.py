"""The demo model's card: what it is, how it was made, and the figures as measured."""

from dataclasses import dataclass

from training.scoring import Scores


@dataclass(frozen=True)
class Made:
    """How a demo model was made.

    Attributes:
        minutes: training time, rendering not counted.
        seen: phantoms shown to it, repeats counted.
    """

    command: str
    seed: int
    parameters: int
    phantoms: int
    minutes: float
    steps: int
    seen: int
    threads: int


@dataclass(frozen=True)
class Measured:
    """Scores on held-out phantoms: as the model sees them, at a higher resolution, and of two constants."""

    at_model_size: Scores
    large: Scores
    large_size: int
    most_frequent: Scores
    best_constant: Scores


def model_card(made: Made, measured: Measured, sample_seed: int, sample_size: int) -> str:
    """The card in Markdown, with the metadata block that model hubs read."""
    scores = measured.at_model_size
    return f"""---
license: mit
library_name: transformers
pipeline_tag: image-text-to-text
tags: [chest-radiograph, synthetic, research]
---

# ExplainMyXray demo model

**Research software, not for clinical use. This model knows computer-drawn phantoms only; it knows nothing about
real radiographs.** It is here so that the whole system can be tried without a download. What it says about a
real image means nothing.

A `Gemma3ForConditionalGeneration` of {made.parameters / 1e6:.2f} million parameters (SigLIP tower at 128 px,
64 image tokens, 1,024 location tokens, bf16), with random beginnings and no pretrained part. Given an image and
the prompt in `emx.json`, it writes FINDINGS, LOCATIONS and IMPRESSION, and a box for each finding.

## How it was made

```
{made.command}
```

Trained from scratch by `training/demo.py` (seed {made.seed}): {made.phantoms:,} procedural chest phantoms
(`training/phantoms.py`), {made.steps:,} steps, {made.seen:,} samples, {made.minutes:.0f} minutes on
{made.threads} CPU threads. The targets come from `training/reports.py`. While it learned, a second head read from
the vision tower which finding covers each patch; that head isn't part of the checkpoint.

The phantoms show none to three of: cardiomegaly, pleural effusion, pneumothorax, consolidation, nodule, mass, the
last five right or left. The other findings of the vocabulary it has never seen.

## Figures

{scores.studies} phantoms of seeds that it was never trained on, greedy decoding by transformers, without a
grammar, the saved bf16 weights in fp32 arithmetic. `training/scoring.py` defines each figure. The constants are
the best that can be said without looking: the most frequent set of findings, and the set of terms with the
highest micro-F1 on the training phantoms, both with mean boxes.

| | model | model, {measured.large_size} px | most frequent set | best constant |
|---|---|---|---|---|
{_rows(measured)}

{measured.large_size} px: {measured.large.studies} of the same phantoms, drawn larger and then scaled down by the
processor, as an uploaded image is.

| finding | n | precision | recall | F1 | mean IoU |
|---|---|---|---|---|---|
{_term_rows(scores)}

## Limits

- Phantoms are no patients. Nothing here says anything about performance on radiographs.
- A held-out phantom comes from the same generator as those it learned from; these figures say that it learned
  the generator, no more.
- One finding of a kind on each side, at most three in all; an image with more is outside what it has seen.

`sample.png` is the held-out phantom of seed {sample_seed}, drawn at {sample_size} px. It was **chosen for
showing** among those that the model reads well; it is not typical.

License: MIT.
"""


def _rows(measured: Measured) -> str:
    columns = (measured.at_model_size, measured.large, measured.most_frequent, measured.best_constant)
    rows = {
        "parse rate": [scores.parse_rate for scores in columns],
        "findings all right": [scores.exact_findings for scores in columns],
        "micro precision": [scores.micro.precision for scores in columns],
        "micro recall": [scores.micro.recall for scores in columns],
        "micro F1": [scores.micro.f1 for scores in columns],
        "macro F1": [scores.macro_f1 for scores in columns],
        "mean IoU of pairs": [scores.mean_iou for scores in columns],
        "match accuracy (IoU >= 0.5)": [scores.match_accuracy for scores in columns],
    }
    return "\n".join(
        f"| {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |" for name, row in rows.items()
    )


def _term_rows(scores: Scores) -> str:
    return "\n".join(
        f"| {term} | {counts.true_positives + counts.false_negatives} | {counts.precision:.3f} | "
        f"{counts.recall:.3f} | {counts.f1:.3f} | {scores.term_iou.get(term, 0):.3f} |"
        for term, counts in scores.terms.items()
    )
