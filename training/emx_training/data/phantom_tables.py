"""Phantoms as a collection of radiographs: PNG files and the tables that phases 1 and 2 read."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image
from rich.progress import track

from emx_shared.contracts.box_table import BOX_COLUMNS
from emx_training.data.phantom_reports import report_of
from emx_training.data.tables import REPORT_COLUMNS, write_table
from emx_training.pretrain.phantom_cache import CachedPhantoms


def write_collection(folder: Path, train: CachedPhantoms, validation: CachedPhantoms) -> None:
    """Write ``images/``, ``train.csv`` and ``validation.csv`` for phase 1, and ``boxes.csv`` for phase 2.

    ``boxes.csv`` is written last. A folder that has it is complete and stays as it is.
    """
    boxes = folder / "boxes.csv"
    if boxes.exists():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for split, phantoms in (("train", train), ("validation", validation)):
        names = [f"images/{split}-{index:05d}.png" for index in range(len(phantoms))]
        for name, image in track(list(zip(names, phantoms.images, strict=True)), description=f"Writing {split}"):
            Image.fromarray(image).save(folder / name, compress_level=1)
        reports = (report_of(phantoms.findings(index)) for index in range(len(phantoms)))
        rows = ((name, report.findings, report.impression) for name, report in zip(names, reports, strict=True))
        write_table(folder / f"{split}.csv", REPORT_COLUMNS, rows)
    write_table(boxes, BOX_COLUMNS, _box_rows(train))


def _box_rows(phantoms: CachedPhantoms) -> Iterable[Sequence[object]]:
    """Yield a row for each box in fractions of the image, or one row without a box for a normal image."""
    for index in range(len(phantoms)):
        name, located = f"images/train-{index:05d}.png", phantoms.findings(index)
        for one in located:
            ymin, xmin, ymax, xmax = one.box.fractions()
            yield (name, one.term, *(f"{value:.5f}" for value in (xmin, ymin, xmax, ymax)))
        if not located:
            yield (name, "", "", "", "", "")
