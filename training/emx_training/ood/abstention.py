"""What a model makes of images that are no phantoms: it should decline them.

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

from emx_training.evaluate.phantom_reader import study_of
from emx_training.ood.ood_images import strangers
from emx_worker.engine.engine import Engine
from emx_worker.image_task import Generation
from emx_worker.model.checkpoint import ModelError
from emx_worker.model.loading import load_model

_BATCH = 32


@dataclass(frozen=True)
class Declined:
    """How many images of each group were declined, of how many, and the names of those that were read."""

    declined: Counter[str]
    shown: Counter[str]
    read: tuple[str, ...]

    @property
    def rate(self) -> float:
        return self.declined.total() / self.shown.total()


def decline(model: Path | str, radiographs: Path | None) -> Declined:
    """Show every stranger to a model, as the worker would. Raises ModelError."""
    engine = Engine(load_model(model), max_batch=_BATCH)
    shown = list(strangers(radiographs))
    declined: Counter[str] = Counter()
    read: list[str] = []
    for at in track(range(0, len(shown), _BATCH), "Showing strangers", console=Console(stderr=True)):
        group = shown[at : at + _BATCH]
        for stranger, answer in zip(
            group, engine.generate([study_of(one.name, one.image) for one in group]), strict=True
        ):
            if isinstance(answer, Generation) and answer.declined:
                declined[stranger.group] += 1
            else:
                read.append(f"{stranger.group}: {stranger.name}")
    return Declined(declined, Counter(one.group for one in shown), tuple(read))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m emx_training.ood.abstention",
        description="Which images, being no phantoms, a model declines to read.",
    )
    parser.add_argument("--model", default="models/demo", help="checkpoint directory or hub id")
    parser.add_argument("--radiographs", type=Path, help="folder of real radiographs to show beside the others")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    try:
        found = decline(options.model, options.radiographs)
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
