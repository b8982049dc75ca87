"""Brings a collection of radiographs into the tables and images that training reads.

``python -m emx_training.dataset_prep padchest --table TABLE.csv.gz --images DIR --output OUT``
``python -m emx_training.dataset_prep openi --reports NLMCXR_reports.tgz --images DIR --output OUT``
``python -m emx_training.dataset_prep padchest-gr --table grounded_reports.json --images DIR --output OUT``
``python -m emx_training.dataset_prep vindr --table train.csv --images DIR --output OUT``
``python -m emx_training.dataset_prep boxes --table boxes.csv --images DIR --output OUT``

OUT gets ``images/``, one CSV for each split, ``skipped.csv`` with the reason for each image that was left out, and
``summary.json``. Run again after an interruption, it goes on where it stopped.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from PIL import Image
from rich.progress import track

from emx_training.data.box_table import read_box_table
from emx_training.data.boxes import COLUMNS as BOX_COLUMNS
from emx_training.data.boxes import BoxedImage
from emx_training.data.openi import read_openi
from emx_training.data.padchest import read_padchest
from emx_training.data.padchest_gr import read_padchest_gr
from emx_training.data.prepared_images import CorruptImage, prepare
from emx_training.data.source_study import SPLITS, BadTable, SourceStudy
from emx_training.data.tables import write_table
from emx_training.data.vindr import read_vindr

READ_REPORTS: dict[str, Callable[[Path], Iterator[SourceStudy]]] = {
    "padchest": read_padchest,
    "openi": read_openi,
}
READ_BOXES: dict[str, Callable[[Path], Iterator[BoxedImage]]] = {
    "padchest-gr": read_padchest_gr,
    "vindr": read_vindr,
    "boxes": read_box_table,
}

COLUMNS = ("image", "findings", "impression", "terms")
"""Of a phase 1 table: path below OUT, two sections of text, terms with ``;`` between them."""


def prepare_reports(studies: Sequence[SourceStudy], images: Path, output: Path, size: int) -> Counter[str]:
    """Images and phase 1 tables of these studies. Returns how many went into each split, or were skipped."""
    names = [f"images/{study.id}.png" for study in studies]
    reasons = _prepare_images([images / study.image for study in studies], [output / name for name in names], size)
    kept = [(study, name) for study, name, reason in zip(studies, names, reasons, strict=True) if not reason]
    for split in SPLITS:
        rows = (
            (name, study.findings, study.impression, ";".join(study.terms))
            for study, name in kept
            if study.split == split
        )
        write_table(output / f"{split}.csv", COLUMNS, rows)
    skipped = [(study.image, reason) for study, reason in zip(studies, reasons, strict=True) if reason]
    write_table(output / "skipped.csv", ("image", "reason"), skipped)
    return Counter([study.split for study, _ in kept]) + Counter({"skipped": len(skipped)})


def prepare_boxes(found: Sequence[BoxedImage], images: Path, output: Path, size: int) -> Counter[str]:
    """Images and the phase 2 table: a row for each box in fractions of the image, or one without a box."""
    names = [f"images/{Path(one.image).with_suffix('.png')}" for one in found]
    reasons = _prepare_images([images / one.image for one in found], [output / name for name in names], size)
    skipped = [(one.image, reason) for one, reason in zip(found, reasons, strict=True) if reason]
    rows: list[tuple[object, ...]] = []
    for one, name, reason in zip(found, names, reasons, strict=True):
        if not reason:
            try:
                rows += _box_rows(one, name, images / one.image)
            except BadTable as error:
                skipped.append((one.image, str(error)))
    write_table(output / "boxes.csv", BOX_COLUMNS, rows)
    write_table(output / "skipped.csv", ("image", "reason"), skipped)
    return Counter({"boxes": sum(bool(row[1]) for row in rows), "skipped": len(skipped)})


def _box_rows(one: BoxedImage, name: str, original: Path) -> list[tuple[object, ...]]:
    with Image.open(original) as opened:
        width, height = opened.size
    rows: list[tuple[object, ...]] = [
        (name, term, *(f"{value:.5f}" for value in (box.xmin, box.ymin, box.xmax, box.ymax)))
        for term, box in one.terms(width, height)
    ]
    return rows or [(name, "", "", "", "", "")]


def _prepare_images(sources: Sequence[Path], targets: Sequence[Path], size: int) -> list[str]:
    """For each image the reason why it can't be used, or nothing. What is there already is left as it is."""
    work = partial(_reason, size=size)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        answers = pool.map(work, sources, targets, chunksize=16)
        return list(track(answers, description="Preparing images", total=len(sources)))


def _reason(source: Path, target: Path, size: int) -> str:
    if target.exists():
        return ""
    try:
        prepare(source, target, size)
    except CorruptImage as error:
        return str(error)
    return ""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    if not options.images.is_dir():
        sys.exit(f"There is no folder {options.images}: give the one with the collection's images.")
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        if options.collection in READ_BOXES:
            found = list(islice(READ_BOXES[options.collection](options.table), options.limit))
            counted = prepare_boxes(found, options.images, options.output, options.size)
        else:
            studies = list(islice(READ_REPORTS[options.collection](options.table), options.limit))
            counted = prepare_reports(studies, options.images, options.output, options.size)
    except BadTable as error:
        sys.exit(str(error))
    summary = {"collection": options.collection, "size": options.size, "counts": dict(counted)}
    (options.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=2))
    if counted.total() == counted["skipped"]:
        sys.exit(f"No image could be used; {options.output / 'skipped.csv'} says why for each.")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m emx_training.dataset_prep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    collections = parser.add_subparsers(dest="collection", required=True, metavar="COLLECTION")
    helps = {
        "padchest": "PadChest's label table; its texts are for phase 1",
        "openi": "the Indiana University reports, for phase 1",
        "padchest-gr": "PadChest-GR's boxes, for phase 2",
        "vindr": "VinDr-CXR's boxes, for phase 2",
        "boxes": "boxes of your own (image, label, xmin, ymin, xmax, ymax in pixels), for phase 2",
    }
    for name, text in helps.items():
        one = collections.add_parser(name, help=text)
        source = "--reports" if name == "openi" else "--table"
        one.add_argument(source, type=Path, required=True, dest="table", help="table or archive as published")
        one.add_argument("--images", type=Path, required=True, help="folder of the collection's images")
        one.add_argument("--output", type=Path, required=True)
        one.add_argument("--size", type=int, default=896, help="longer side of the prepared images, pixels")
        one.add_argument("--limit", type=int, help="take only the first so many studies")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
