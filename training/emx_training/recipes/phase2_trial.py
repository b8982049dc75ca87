"""Try ways to train phase 2, on phantoms: what each learns of locations, and what it leaves of phase 1's language.

``python -m emx_training.recipes.phase2_trial --base models/demo --output runs/phase2-trial``

Phase 1 learns reports in another wording than that of the demo model's base, as a radiologist's differs from a
template's. Phase 2 then trains, each from there:

- *whole*: the template's whole report, as it was before;
- *locations*: LOCATIONS alone, after the template's sentences;
- *replay*: the same, with as many of phase 1's reports in between;
- *own words*: as *replay*, but LOCATIONS follow the sentences that phase 1's model writes, as with
  ``finetune_phase2 --replay``.

Then the base's location rows are forgotten, and *locations* learns them again: from the mean of the embedding, or
in their order. The result has the loss of phase 1's texts (nats a token, before and after), micro-F1 and mean IoU
of phantoms that nothing was trained on, and the validation loss of the rows. ``results.json`` keeps it.
"""

import argparse
import csv
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from accelerate.utils import set_seed
from peft import PeftModel

from emx_shared.grammar import LOC_BINS
from emx_training.data.phantom_tables import write_collection
from emx_training.data.tables import REPORT_COLUMNS, open_table, write_table
from emx_training.evaluate.scoring import score
from emx_training.evaluate.splits import read_split
from emx_training.finetune import lora
from emx_training.finetune.collator import Collator
from emx_training.finetune.examples import Example, read_boxes, read_reports
from emx_training.finetune.location_rows import initial_rows
from emx_training.finetune.loop import FinetuningRun, finetune
from emx_training.finetune.own_words import in_own_words
from emx_training.finetune.training_options import TrainingOptions
from emx_training.finetune_phase1 import main as phase1
from emx_training.phantoms import training_seeds
from emx_training.pretrain.phantom_cache import cached_phantoms

BLOCK, WATCHED_BLOCK = 5, 97
"""Blocks of training seeds that no step of the demo model's recipe uses."""

_WORDS = (
    (r"There is an? (\w+) in the (\w+ \w+) zone", r"There is in the \2 zone a \1"),
    (r"There is an interstitial pattern in the (\w+) lung", r"There is in the \1 lung an interstitial pattern"),
    (r"There is a \w+ (\w+) pleural effusion", r"There is a pleural effusion in the \1 lung"),
    (r"There is a (\w+) pneumothorax", r"There is a pneumothorax in the \1 lung"),
    (r"The heart is enlarged", "The heart size is enlarged"),
    (r"The heart size is normal", "The heart is normal"),
    (r"The lungs and pleural spaces are clear", "The pleural spaces and lungs are clear"),
    (r"No acute cardiopulmonary abnormality", "No acute abnormality"),
)
"""Wordings of the template, and those that phase 1 learns here in their place, of words that the base knows."""


class Trial:
    """The data, the base and phase 1's adapter that all ways begin with."""

    def __init__(self, base: Path, output: Path, cache: Path, phantoms: int, evaluated: int) -> None:
        self._base, self._output, self._evaluated = base, output, evaluated
        self._options = TrainingOptions(epochs=1, rate=3e-4, batch=16)
        self._collection, self._first = output / "collection", output / "phase1"
        train, watched = (
            cached_phantoms(training_seeds(count, block), cache)
            for count, block in ((phantoms, BLOCK), (128, WATCHED_BLOCK))
        )
        write_collection(self._collection, train, watched)
        self._boxes = read_boxes(self._collection / "boxes.csv", self._collection)
        self._replayed, self._watched = self._reports("train"), self._reports("validation")
        if not (self._first / "adapter_config.json").exists():
            phase1(
                ["--csv", str(self._collection / "other-train.csv"), "--images", str(self._collection),
                 "--output", str(self._first), "--base", str(base), "--epochs", "3", "--lr", "6e-4",
                 "--lora_r", "16", "--batch", "16",
                 "--validation", str(self._collection / "other-validation.csv")]
            )  # fmt: skip

    def ways(self) -> dict[str, list[Example]]:
        """Return the examples of each way."""
        whole = [Example(one.image, tuple((text, True) for text, _ in one.answer)) for one in self._boxes]
        own = in_own_words(self._boxes, str(self._base), self._first, "none", self._output / "own-words.json")
        return {
            "whole": whole,
            "locations": self._boxes,
            "replay": [*self._boxes, *self._replayed],
            "own words": [*own, *self._replayed],
        }

    def result(self, name: str, examples: Sequence[Example]) -> dict[str, float]:
        """Train phase 2 on examples, and measure it."""
        folder = self._output / name
        folder.mkdir(parents=True, exist_ok=True)
        prepared = lora.load_base(str(self._base), "none", adapters=[self._first])
        set_seed(0)
        model, first = lora.location_adapter(prepared, lora.read_phase1(self._first))
        collate = Collator(prepared.architecture, prepared.processor)
        before = self._text_loss(model, collate)
        prepared.describe(folder)
        finetune(model, collate, examples, self._boxes[:32], self._options, folder, first)
        model.eval()
        scores = score(read_split(self._base, "heldout", self._evaluated, adapter=folder, quantisation="none"))
        return {
            "text_loss_before": before,
            "text_loss": self._text_loss(model, collate),
            "micro_f1": scores.figures["micro_f1"],
            "mean_iou": scores.mean_iou,
        }

    def rows(self, ordered: bool) -> dict[str, float]:
        """Train location rows that begin anew; return the loss of locations after each quarter of the examples."""
        prepared = lora.load_base(str(self._base), "none", adapters=[self._first])
        set_seed(0)
        weight = prepared.model.get_input_embeddings().weight
        first = prepared.processor.tokenizer.convert_tokens_to_ids("<loc0000>")
        others = torch.cat([weight.data[:first], weight.data[first + LOC_BINS :]])
        noise = torch.randn(LOC_BINS, weight.shape[1]) * 1e-5
        weight.data[first : first + LOC_BINS] = initial_rows(others) if ordered else others.mean(0) + noise
        model, first = lora.location_adapter(prepared, lora.read_phase1(self._first))
        collate = Collator(prepared.architecture, prepared.processor)
        options, examples = replace(self._options, rate=1e-3), self._boxes[64:]
        run = FinetuningRun(model, collate, len(examples), options, self._output, first)
        losses = {"0 %": run.validate(self._boxes[:64])}
        updates = list(range(run.total_steps))
        for step, batches in zip(updates, run.remaining_updates(examples), strict=True):
            run.update(batches)
            if (step + 1) * 4 // len(updates) > step * 4 // len(updates):
                losses[f"{(step + 1) * 100 // len(updates)} %"] = run.validate(self._boxes[:64])
                model.train()
        return losses

    def _reports(self, split: str) -> list[Example]:
        """Return a split of the collection in other words."""
        table = self._collection / f"other-{split}.csv"
        if not table.exists():
            with open_table(self._collection / f"{split}.csv") as lines:
                rows = [[row["image"], *map(_reworded, (row["findings"], row["impression"]))]
                        for row in csv.DictReader(lines)]  # fmt: skip
            write_table(table, REPORT_COLUMNS, rows)
        return read_reports(table, self._collection)

    def _text_loss(self, model: PeftModel, collate: Collator) -> float:
        run = FinetuningRun(model, collate, 1, self._options, self._output, None)
        return run.validate(self._watched)


def _reworded(text: str) -> str:
    for template, other in _WORDS:
        text = re.sub(template, other, text)
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = _options(arguments)
    trial = Trial(options.base, options.output, options.cache, options.phantoms, options.evaluated)
    found: dict[str, object] = {}
    for name, examples in trial.ways().items():
        found[name] = trial.result(name, examples)
        print(json.dumps({name: found[name]}), file=sys.stderr)
    found["rows from the mean"] = trial.rows(ordered=False)
    found["rows in order"] = trial.rows(ordered=True)
    text = json.dumps(found, indent=2)
    (options.output / "results.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m emx_training.recipes.phase2_trial",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", type=Path, required=True, help="the demo checkpoint")
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--cache", type=Path, default=Path("runs/phantoms"), help="folder of rendered phantoms")
    parser.add_argument("--phantoms", type=int, default=1600, help="to train on, default %(default)s")
    parser.add_argument("--evaluated", type=int, default=200, help="to measure on, default %(default)s")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
