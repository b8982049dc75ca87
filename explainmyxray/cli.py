"""The command ``emx``. The rooms are imported when a command needs them, so that ``--help`` is quick."""

import signal
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from explainmyxray.benchmarks.commands import bench
from explainmyxray.models import model as model_commands
from explainmyxray.terminal import Quantisation, console, errors, refused

if TYPE_CHECKING:
    from shared.report import Report


class Split(StrEnum):
    """The names in training.splits.SPLITS, known here without importing it."""

    HELDOUT = "heldout"
    DEV_SITE = "dev_site"
    UNSEEN_SITE = "unseen_site"


app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,
    help="ExplainMyXray: chest radiographs in, structured reports with boxes out. Research software, not for "
    "clinical use.",
)
app.add_typer(bench, name="bench")
app.add_typer(model_commands, name="model")


@app.callback()
def _commands() -> None:
    """Keep `emx COMMAND`, however many commands there are."""


@app.command()
def up(
    port: Annotated[
        int, typer.Option(help="Port of gateway and workstation, on 127.0.0.1", min=1, max=65535)
    ] = 8000,
    data: Annotated[Path, typer.Option(help="Where images, reports and logs are kept")] = Path("data"),
    once: Annotated[bool, typer.Option("--once", help="Read the demo image, then stop")] = False,
) -> None:
    """Start everything on this machine, read the demo image, then serve until Ctrl-C."""
    from explainmyxray.up import CannotStart, System

    system = System(port, data.resolve())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with console.status("Starting") as status:
            system.start()
            for missing in system.wait_until_ready():
                status.update(f"Starting; waiting for {missing}")
        _show_demo(system.url, system.data)
        if not once:
            console.print(f"\nWorkstation: [bold]{system.url}[/]   API: {system.url}/docs   Logs: {system.logs}")
            console.print(f"Metrics:     {'   '.join(system.metrics.values())}\nCtrl-C stops everything.")
            system.watch()
    except CannotStart as error:
        raise refused(error) from None
    except KeyboardInterrupt:
        console.print("\nStopping.")
    finally:
        system.stop()


@app.command()
def analyze(
    image: Annotated[Path, typer.Argument(help="A PNG, JPEG, TIFF or DICOM file", exists=True, dir_okay=False)],
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON")] = False,
    overlay: Annotated[Path | None, typer.Option(help="Write the image with its boxes here, as PNG")] = None,
) -> None:
    """Read one radiograph in this process, without gateway or Redis. EMX_MODEL chooses another model."""
    from shared.imaging import BadImage, decode

    data = image.read_bytes()
    try:
        decoded = decode(data)
    except BadImage as error:
        raise refused(error) from None
    report = _read_here(data)
    if overlay:
        from gateway.renderings.overlay import overlay_png

        try:
            overlay.write_bytes(overlay_png(decoded.image, report))
        except OSError as error:
            raise refused(f"Cannot write {overlay}: {error.strerror}") from None
    if json:
        print(report.model_dump_json(indent=2))
    else:
        _print_report(report.model_dump(mode="json"))
        if overlay:
            console.print(f"Overlay: {overlay}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Option(help="Checkpoint directory or hub id")] = "",
    split: Annotated[Split, typer.Option(help="Phantoms to read; none of them was trained on")] = Split.HELDOUT,
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many of them")] = 500,
    json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the reports here, for training.metrics")] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Draw plots into this folder, as PNG", file_okay=False)
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="Directory of a PEFT adapter")] = None,
    quantisation: Annotated[Quantisation | None, typer.Option(help="Of the weights")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda")] = None,
) -> None:
    """Score a model on computer-drawn phantoms, read by the worker's own code.

    heldout: of the site that the demo model was trained on. dev_site: of the one that choices were made on.
    unseen_site: of one that neither training nor any choice has seen. The figures there, beside those on heldout,
    are what zero-shot spatial generalisation means here.

    What isn't given is taken from the settings: EMX_MODEL, EMX_ADAPTER, EMX_QUANTISATION, EMX_DEVICE.
    """
    from shared.settings import settings

    if output and not output.parent.is_dir():
        raise refused(f"There is no folder {output.parent}: --output can't be written there.")
    chosen = settings()
    try:
        from training.metrics import show
        from training.predictions import case_of, write_predictions
        from training.splits import read_split

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
            f"Evaluation needs more packages ({error}): pip install 'explainmyxray[training]', or "
            ".venv/bin/pip install -r requirements-dev.txt in a clone."
        ) from None
    except RuntimeError as error:  # ModelError is one; importing it would load torch before its time
        if type(error).__name__ != "ModelError":
            raise
        raise refused(error) from None
    try:
        if output:
            write_predictions(predictions, output)
        show([case_of(prediction) for prediction in predictions], json, plots)
    except OSError as error:
        raise refused(f"{error.filename} can't be written: {error.strerror}.") from None


def _read_here(data: bytes) -> "Report":
    with errors.status("Loading the model") as status:
        from transformers.utils import logging

        from explainmyxray.inference import InferenceError, load_model, run_inference
        from shared.settings import settings
        from worker.loading import ModelError

        logging.disable_progress_bar()
        chosen = settings()
        try:
            model, processor = load_model(chosen.model, chosen.adapter, chosen.device, chosen.quantisation)
            status.update("Reading the image")
            return run_inference(model, processor, data).report
        except (ModelError, InferenceError) as error:
            raise refused(error) from None


def _show_demo(url: str, data: Path) -> None:
    """Send the bundled image through the HTTP API, as any client would."""
    import httpx

    from shared.settings import ROOT

    sample = ROOT / "models" / "demo" / "sample.png"
    with httpx.Client(base_url=url, timeout=30) as client, console.status("Reading the demo image"):
        accepted = client.post("/v1/jobs", files={"file": (sample.name, sample.read_bytes())}).raise_for_status()
        where = accepted.headers["location"]
        while (job := client.get(where).raise_for_status().json())["state"] in ("queued", "running"):
            time.sleep(0.1)
        if job["state"] != "succeeded":
            raise refused(f"The demo image wasn't read: {job['state']}. {job.get('failure')}")
        overlay = data / "demo-overlay.png"
        overlay.write_bytes(client.get(f"{where}/overlay.png").raise_for_status().content)
    _print_report(job["report"])
    console.print(f"Overlay: {overlay}")


def _print_report(report: dict[str, Any]) -> None:
    table = Table(
        "finding", "side", "p", "xmin", "ymin", "xmax", "ymax", title="LOCATIONS (pixels)", title_justify="left"
    )
    for place in report["locations"]:
        box = place["box"]
        corners = (f"{box[side]:.0f}" for side in ("xmin", "ymin", "xmax", "ymax"))
        probability = place["probability"]
        sure = "" if probability is None else f"{probability:.2f}"
        table.add_row(f"[{place['colour']}]■[/] {place['label']}", place["laterality"] or "", sure, *corners)
    console.print(Panel(escape(report["findings"]), title="FINDINGS", title_align="left"))
    absent = "not assessed" if report["abstained"] else "none"
    console.print(table if report["locations"] else f"LOCATIONS: {absent}")
    console.print(Panel(escape(report["impression"]), title="IMPRESSION", title_align="left"))
    for notice in (*report["warnings"], report["disclaimer"]):
        console.print(f"[yellow]{notice}[/]")


if __name__ == "__main__":
    app()
