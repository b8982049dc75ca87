"""Measure how many out-of-distribution images a model declines to read.

``python -m emx_training.ood.abstention --model models/demo --radiographs DIR [--json]``
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from emx_training.evaluate.phantom_reader import image_task_of
from emx_training.ood.ood_images import ood_images
from emx_worker.engine.engine import Engine
from emx_worker.image_task import Generation
from emx_worker.model.checkpoint import ModelError
from emx_worker.model.loading import load_model

_BATCH = 32
"""Images that are read together."""


@dataclass(frozen=True)
class AbstentionCounts:
    """What a model did with out-of-distribution images.

    Attributes:
        declined: number of declined images in each group.
        shown: number of images in each group.
        read: group and name of each image that wasn't declined.
    """

    declined: Counter[str]
    shown: Counter[str]
    read: tuple[str, ...]

    @property
    def rate(self) -> float:
        """Return the share of images that were declined, 0 to 1."""
        return self.declined.total() / self.shown.total()


def measure_abstention(model: Path | str, radiographs: Path | None) -> AbstentionCounts:
    """Read every out-of-distribution image with a model, as the worker would.

    Args:
        model: checkpoint directory or hub id.
        radiographs: folder of real radiographs, or None to leave them out.

    Raises:
        ModelError: if the model can't be loaded.
    """
    engine = Engine(load_model(model), max_batch=_BATCH)
    shown = list(ood_images(radiographs))
    declined: Counter[str] = Counter()
    read: list[str] = []
    for at in track(
        range(0, len(shown), _BATCH), "Reading images that aren't phantoms", console=Console(stderr=True)
    ):
        group = shown[at : at + _BATCH]
        answers = engine.generate([image_task_of(one.name, one.image) for one in group])
        for one, answer in zip(group, answers, strict=True):
            if isinstance(answer, Generation) and answer.declined:
                declined[one.group] += 1
            else:
                read.append(f"{one.group}: {one.name}")
    return AbstentionCounts(declined, Counter(one.group for one in shown), tuple(read))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m emx_training.ood.abstention",
        description="Count the images that aren't phantoms and that a model declines to read.",
    )
    parser.add_argument("--model", default="models/demo", help="checkpoint directory or hub id")
    parser.add_argument("--radiographs", type=Path, help="folder of real radiographs to add to the others")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    try:
        found = measure_abstention(options.model, options.radiographs)
    except ModelError as error:
        sys.exit(str(error))
    if options.json:
        groups = {group: [found.declined[group], shown] for group, shown in found.shown.items()}
        print(json.dumps({"declined_rate": found.rate, "groups": groups, "read": found.read}, indent=2))
        return
    table = Table("group", "declined", "shown", caption="Read: " + ("; ".join(found.read) or "none"))
    for group, count in found.shown.items():
        table.add_row(group, str(found.declined[group]), str(count))
    table.add_row("all", str(found.declined.total()), str(found.shown.total()))
    Console().print(table)


if __name__ == "__main__":
    main()
