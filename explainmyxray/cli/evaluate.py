"""``emx evaluate``: a model's scores on phantoms, or on a table of a collection of radiographs."""

import json as jsonlib
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from explainmyxray.cli.terminal import Quantisation, console, errors, refused

if TYPE_CHECKING:
    from emx_training.evaluate.collection import Judgement


class Split(StrEnum):
    """The names in emx_training.evaluate.splits.SPLITS, without importing it."""

    HELDOUT = "heldout"
    DEV_SITE = "dev_site"
    UNSEEN_SITE = "unseen_site"


def evaluate(
    model: Annotated[str, typer.Option(help="Checkpoint directory or hub id")] = "",
    split: Annotated[
        Split, typer.Option(help="Phantoms to read; the demo model was trained on none of them")
    ] = Split.HELDOUT,
    count: Annotated[
        int | None, typer.Option(min=1, help="Images to read; default: 500 phantoms, or all of the table")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Judge on this table, as dataset_prep writes it, instead of phantoms")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder that the table's paths start from; default: the table's own")
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            help="Table with the constant report to compare with; default: train.csv or boxes.csv beside the table"
        ),
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="Model to compare with, as it was published: checkpoint directory or hub id")
    ] = "",
    judge: Annotated[
        str,
        typer.Option(help="Language model at EMX_SERVER that judges which sentences follow"),
    ] = "",
    html: Annotated[
        Path | None, typer.Option(help="Write a page with figures and the worst images; for --data")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write the reports to this file, for emx_training.metrics; with --data, all figures too"
        ),
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Draw plots into this folder, as PNG", file_okay=False)
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="Directory of a PEFT adapter")] = None,
    quantisation: Annotated[Quantisation | None, typer.Option(help="Quantisation of the weights")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda")] = None,
) -> None:
    """Score a model on computer-drawn phantoms, or with --data on radiographs, read by the worker's own code.

    heldout: phantoms of the site that the demo model was trained on.

    dev_site: phantoms of the site that choices were made on.

    unseen_site: phantoms of a site that neither training nor any choice has seen, to measure zero-shot spatial
    generalisation against the scores on heldout.

    Defaults come from the settings: EMX_MODEL, EMX_ADAPTER, EMX_QUANTISATION, EMX_DEVICE.
    """
    from emx_shared.settings import settings

    for option, file in (("--output", output), ("--html", html)):
        if file and not file.parent.is_dir():
            raise refused(f"There is no folder {file.parent} for {option}. Make it first.")
    chosen = settings()
    options: dict[str, Any] = {
        "adapter": adapter or chosen.adapter,
        "device": device or chosen.device,
        "quantisation": quantisation or chosen.quantisation,
    }
    if data is None:
        if images or train or baseline or judge or html:
            raise refused("--images, --train, --baseline, --judge and --html are for --data.")
        with _evaluating():
            from emx_training.evaluate.predictions import case_of, write_predictions
            from emx_training.evaluate.splits import read_split
            from emx_training.metrics import print_scores

            predictions = read_split(model or chosen.model, split, count or 500, **options)
            if output:
                write_predictions(predictions, output)
            print_scores([case_of(prediction) for prediction in predictions], json, plots)
        return
    if plots:
        raise refused("--plots draws phantoms: use --html with --data.")
    if judge and not chosen.server:
        raise refused("--judge names a model at an OpenAI-compatible server: set EMX_SERVER to the server.")
    beside = data.with_name("boxes.csv" if data.name.startswith("boxes") else "train.csv")
    with _evaluating():
        from emx_training.evaluate.collection import judge_model
        from emx_training.evaluate.entailment import Judge
        from emx_training.evaluate.judgement_page import write_page

        judgement = judge_model(
            data,
            images or data.parent,
            model or chosen.model,
            train=train or (beside if beside.is_file() and beside != data else None),
            baseline=baseline or None,
            judge=Judge(chosen.server, judge, chosen.server_key) if judge and chosen.server else None,
            count=count,
            **options,
        )
        if output:
            judgement.write(output)
        if html:
            write_page(judgement, html)
        if json:
            print(jsonlib.dumps(judgement.summary(), indent=2))
        else:
            _print_judgement(judgement)


@contextmanager
def _evaluating() -> Iterator[None]:
    """Name what is missing or invalid, and exit."""
    try:
        yield
    except ImportError as error:
        raise refused(
            f"Evaluation needs more packages ({error}): pip install 'explainmyxray[training]', or in a clone "
            ".venv/bin/pip install -r requirements-dev.txt"
        ) from None
    except (RuntimeError, ValueError) as error:  # by name: importing the classes would load torch
        if type(error).__name__ not in ("ModelError", "JudgeFailed", "BadTable"):
            raise
        raise refused(error) from None
    except OSError as error:
        raise refused(f"{error.filename} can't be written: {error.strerror}.") from None


def _print_judgement(judgement: "Judgement") -> None:
    scores = judgement.scores
    others = [(one.name, one.scores) for one in judgement.baselines if one.scores is not None]
    by = "images" if scores.patients is None else f"{scores.patients} patients"
    title = f"{judgement.model.name} on {judgement.table}: {scores.images} images, intervals over {by}"
    table = Table("figure", "value", "95 % interval", *(name for name, _ in others), title=title)
    for name, value in scores.figures.items():
        low, high = scores.intervals[name]
        beside = [f"{other.figures[name]:.3f}" if name in other.figures else "" for _, other in others]
        table.add_row(name, f"{value:.3f}", f"{low:.3f}–{high:.3f}", *beside)
    findings = Table("finding", "images", "F1 of the text", "F1 of LOCATIONS")
    for label, one in scores.findings.items():
        findings.add_row(label, str(one.images), f"{one.text.f1:.3f}", f"{one.locations.f1:.3f}")
    console.print(table, findings)
    missing = [*scores.absent.items(), *((one.name, one.absent) for one in judgement.baselines if one.absent)]
    for name, why in missing:
        errors.print(f"No {name}: {escape(why)}")
    if judgement.unreadable:
        errors.print(f"{len(judgement.unreadable)} images could not be decoded, and are left out.")
    if judgement.true.left_out:
        errors.print(escape(judgement.true.left_out))
