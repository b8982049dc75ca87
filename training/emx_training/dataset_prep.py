"""Prepare a collection of radiographs: write the tables and images that training reads.

``python -m emx_training.dataset_prep padchest --table TABLE.csv.gz --images DIR --output OUT``
``python -m emx_training.dataset_prep openi --reports NLMCXR_reports.tgz --images DIR --output OUT``
``python -m emx_training.dataset_prep openi --reports indiana_reports.csv --projections indiana_projections.csv …``
``python -m emx_training.dataset_prep padchest-gr --table grounded_reports.json --patients TABLE.csv.gz …``
``python -m emx_training.dataset_prep vindr --table train.csv --images DIR --output OUT``
``python -m emx_training.dataset_prep boxes --table boxes.csv --images DIR --output OUT``

The command writes to OUT: ``images/``, the tables, ``skipped.csv`` with the reason for each skipped image, and
``summary.json``. After an interruption, run it again: it resumes where it stopped. ``--dry-run`` counts what the
tables give, by split and finding, and what is left out and why; it needs no images.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.progress import track

from emx_shared.contracts.box_table import BOX_COLUMNS, patient_digest
from emx_shared.contracts.report import ImageFacts
from emx_training.data.box_table import read_box_table
from emx_training.data.boxes import BoxedImage
from emx_training.data.counts import count_boxes, count_reports
from emx_training.data.image_folder import ImageFolder, prepared_names
from emx_training.data.openi import read_openi
from emx_training.data.padchest import read_padchest
from emx_training.data.padchest_gr import read_padchest_gr
from emx_training.data.prepared_images import CorruptImage, facts_of_prepared, prepare
from emx_training.data.source_image import SPLITS, SourceImage
from emx_training.data.tables import REPORT_COLUMNS, BadTable, write_table
from emx_training.data.vindr import read_vindr

BOX_TABLES = {"train": "boxes.csv", "validation": "boxes-validation.csv", "test": "boxes-test.csv"}
"""The phase 2 table of each split."""

COLUMNS = (*REPORT_COLUMNS, "terms", "patient")
"""Columns of the report tables; paths start from OUT, terms are joined with ``;``, and ``patient`` is a digest."""


def prepare_reports(found: Sequence[SourceImage], images: Path, output: Path, size: int) -> Counter[str]:
    """Write the images and the phase 1 tables.

    Args:
        found: the collection's images.
        images: the folder that has their files.
        output: the folder to write to.
        size: longest side of a prepared image, in pixels.

    Returns:
        How many images there are, how many each split has, and how many were skipped.
    """
    names = [f"images/{one.id}.png" for one in found]
    originals, skipped = _prepare_images([one.image for one in found], names, images, output, size)
    kept = [(one, name) for one, name, original in zip(found, names, originals, strict=True) if original]
    for split in SPLITS:
        rows = (
            (name, one.findings, one.impression, ";".join(one.terms), patient_digest(one.patient))
            for one, name in kept
            if one.split == split
        )
        write_table(output / f"{split}.csv", COLUMNS, rows)
    write_table(output / "skipped.csv", ("image", "reason"), skipped)
    return Counter({"images": len(kept), **Counter(one.split for one, _ in kept), "skipped": len(skipped)})


def prepare_boxes(found: Sequence[BoxedImage], images: Path, output: Path, size: int) -> Counter[str]:
    """Write the images and the phase 2 tables, one for each split that has images.

    A table has a row for each box, in fractions of the image, a row without a box for a normal image, and one
    for each finding that an image shows or may show without a box; each has the patient's digest. An image without
    any box that isn't known to be normal is skipped.

    Args:
        found: the collection's images.
        images: the folder that has their files.
        output: the folder to write to.
        size: longest side of a prepared image, in pixels.

    Returns:
        How many images and boxes there are, how many images each split has, and how many were skipped.
    """
    usable = [one for one in found if not one.uninformative]
    names = prepared_names([one.image for one in usable])
    originals, skipped = _prepare_images([one.image for one in usable], names, images, output, size)
    skipped += [(one.image, one.uninformative) for one in found if one.uninformative]
    rows: dict[str, list[tuple[object, ...]]] = {split: [] for split in SPLITS}
    images_of: Counter[str] = Counter(dict.fromkeys(SPLITS, 0))
    for one, name, original in zip(usable, names, originals, strict=True):
        if original:
            try:
                patient = patient_digest(one.patient)
                rows[one.split] += [(*row, patient) for row in _box_rows(one, name, original)]
                images_of[one.split] += 1
            except BadTable as error:
                skipped.append((one.image, str(error)))
    for split, table in BOX_TABLES.items():
        if rows[split] or split == "train":
            write_table(output / table, (*BOX_COLUMNS, "patient"), rows[split])
        else:
            (output / table).unlink(missing_ok=True)
    write_table(output / "skipped.csv", ("image", "reason"), skipped)
    boxes = sum(bool(row[2]) for of_split in rows.values() for row in of_split)
    return Counter({"images": images_of.total(), "boxes": boxes, **images_of, "skipped": len(skipped)})


def _box_rows(one: BoxedImage, name: str, original: ImageFacts) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (name, term, *(f"{value:.5f}" for value in (box.xmin, box.ymin, box.xmax, box.ymax)))
        for term, box in one.terms(original)
    ]
    return rows + [(name, label, "", "", "", "") for label in one.unlocated] or [(name, "", "", "", "", "")]


def _prepare_images(
    originals: Sequence[str], names: Sequence[str], images: Path, output: Path, size: int
) -> tuple[list[ImageFacts | None], list[tuple[str, str]]]:
    """Write each prepared image that doesn't exist yet.

    Args:
        originals: paths of the files, from ``images``.
        names: paths to write to, from ``output``.
        images: the folder that has the files.
        output: the folder to write to.
        size: longest side of a prepared image, in pixels.

    Returns:
        The facts of each original, None for one that can't be used; and those that can't, with the reason.
    """
    folder = ImageFolder(images)
    sources = [_found(folder, original) for original in originals]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        answers = pool.map(partial(_prepared, size=size), sources, [output / name for name in names], chunksize=16)
        facts = list(track(answers, description="Preparing images", total=len(names)))
    reasons = [(name, answer) for name, answer in zip(originals, facts, strict=True) if isinstance(answer, str)]
    return [None if isinstance(answer, str) else answer for answer in facts], reasons


def _found(folder: ImageFolder, original: str) -> Path | str:
    """Return an image's file, or why there is none."""
    try:
        return folder.find(original)
    except CorruptImage as error:
        return str(error)


def _prepared(source: Path | str, target: Path, size: int) -> ImageFacts | str:
    """Return the facts of a prepared image's original, or why it can't be used."""
    if isinstance(source, str):
        return source
    try:
        return facts_of_prepared(target) or prepare(source, target, size)
    except CorruptImage as error:
        return str(error)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = _options(arguments)
    if not options.dry_run and not options.images.is_dir():
        sys.exit(f"There is no folder {options.images}: set --images to the folder with the collection's images.")
    try:
        counts = _boxes(options) if options.collection in _PHASE_2 else _reports(options)
    except BadTable as error:
        sys.exit(str(error))
    summary = {"collection": options.collection, "size": options.size, "counts": counts}
    print(json.dumps(summary, indent=2, ensure_ascii=False))
    if not options.dry_run:
        (options.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        if not counts["images"]:
            sys.exit(f"No image could be used: see {options.output / 'skipped.csv'} for the reasons.")


_PHASE_2 = ("padchest-gr", "vindr", "boxes")


def _reports(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare or count a collection of reports, and return the counts."""
    left_out: Counter[str] = Counter()
    if options.collection == "openi":
        sources = read_openi(options.table, options.projections, left_out)
    else:
        sources = read_padchest(options.table, left_out)
    found = list(islice(sources, options.limit))
    if options.dry_run:
        return count_reports(found, left_out)
    options.output.mkdir(parents=True, exist_ok=True)
    return dict(prepare_reports(found, options.images, options.output, options.size))


def _boxes(options: argparse.Namespace) -> dict[str, Any]:
    """Prepare or count a collection of boxes, and return the counts."""
    match options.collection:
        case "padchest-gr":
            boxed = read_padchest_gr(options.table, options.patients)
        case "vindr":
            boxed = read_vindr(options.table)
        case _:
            boxed = read_box_table(options.table)
    found = list(islice(boxed, options.limit))
    if options.dry_run:
        return count_boxes(found)
    options.output.mkdir(parents=True, exist_ok=True)
    return dict(prepare_boxes(found, options.images, options.output, options.size))


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
        "boxes": "boxes of your own (image, label, xmin, ymin, xmax, ymax in pixels, patient), for phase 2",
    }
    for name, text in helps.items():
        one = collections.add_parser(name, help=text)
        source = "--reports" if name == "openi" else "--table"
        one.add_argument(source, type=Path, required=True, dest="table", help="table or archive, as published")
        if name == "openi":
            one.add_argument("--projections", type=Path, help="with Kaggle's reports, its indiana_projections.csv")
        if name == "padchest-gr":
            one.add_argument("--patients", type=Path, required=True, help="PadChest's label table, for the splits")
        one.add_argument("--images", type=Path, help="folder with the collection's images")
        one.add_argument("--output", type=Path, help="folder to write to")
        one.add_argument(
            "--size", type=int, default=896, help="longest side of a prepared image in pixels, default %(default)s"
        )
        one.add_argument("--limit", type=int, help="prepare only the first images, at most this many")
        one.add_argument("--dry-run", action="store_true", help="count what the tables give; needs no images")
    options = parser.parse_args(arguments)
    if not options.dry_run and (options.images is None or options.output is None):
        parser.error("give --images and --output, or --dry-run")
    return options


if __name__ == "__main__":
    main()
