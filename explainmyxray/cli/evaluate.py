"""``emx evaluate``: a model's scores on phantoms."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from explainmyxray.cli.terminal import Quantisation, refused


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
    count: Annotated[int, typer.Option(min=1, max=10_000, help="Number of phantoms")] = 500,
    json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Write the reports to this file, for emx_training.metrics")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Draw plots into this folder, as PNG", file_okay=False)
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="Directory of a PEFT adapter")] = None,
    quantisation: Annotated[Quantisation | None, typer.Option(help="Quantisation of the weights")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda")] = None,
) -> None:
    """Score a model on computer-drawn phantoms, read by the worker's own code.

    heldout: phantoms of the site that the demo model was trained on.

    dev_site: phantoms of the site that choices were made on.

    unseen_site: phantoms of a site that neither training nor any choice has seen, to measure zero-shot spatial
    generalisation against the scores on heldout.

    Defaults come from the settings: EMX_MODEL, EMX_ADAPTER, EMX_QUANTISATION, EMX_DEVICE.
    """
    from emx_shared.settings import settings

    if output and not output.parent.is_dir():
        raise refused(f"There is no folder {output.parent} for --output. Make it first.")
    chosen = settings()
    try:
        from emx_training.evaluate.predictions import case_of, write_predictions
        from emx_training.evaluate.splits import read_split
        from emx_training.metrics import print_scores

        predictions = read_split(
            model or chosen.model,
            split,
            count,
            adapter=adapter or chosen.adapter,
            device=device or chosen.device,
            quantisation=quantisation or chosen.quantisation,
        )
    except ImportError as error:
        raise refused(
            f"Evaluation needs more packages ({error}): pip install 'explainmyxray[training]', or in a clone "
            ".venv/bin/pip install -r requirements-dev.txt"
        ) from None
    except RuntimeError as error:  # such as ModelError, whose import would load torch before it is needed
        if type(error).__name__ != "ModelError":
            raise
        raise refused(error) from None
    try:
        if output:
            write_predictions(predictions, output)
        print_scores([case_of(prediction) for prediction in predictions], json, plots)
    except OSError as error:
        raise refused(f"{error.filename} can't be written: {error.strerror}.") from None
