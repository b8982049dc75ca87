"""The command ``emx``. The rooms are imported when a command needs them, so that ``--help`` is quick."""

import signal
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

if TYPE_CHECKING:
    from shared.report import Report


class Split(StrEnum):
    """The names in training.splits.SPLITS, known here without importing it."""

    HELDOUT = "heldout"


app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,
    help="ExplainMyXray: chest radiographs in, structured reports with boxes out. Research software, not for "
    "clinical use.",
)
console, errors = Console(), Console(stderr=True)


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
        raise _refused(error) from None
    except KeyboardInterrupt:
        console.print("\nStopping.")
    finally:
        system.stop()


@app.command()
def analyze(
    image: Annotated[Path, typer.Argument(help="A PNG or JPEG file", exists=True, dir_okay=False)],
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON")] = False,
    overlay: Annotated[Path | None, typer.Option(help="Write the image with its boxes here, as PNG")] = None,
) -> None:
    """Read one radiograph in this process, without gateway or Redis. EMX_MODEL chooses another model."""
    from shared.imaging import BadImage, decode

    data = image.read_bytes()
    try:
        decoded = decode(data)
    except BadImage as error:
        raise _refused(error) from None
    report = _read_here(data)
    if overlay:
        from gateway.renderings.overlay import overlay_png

        try:
            overlay.write_bytes(overlay_png(decoded.image, report))
        except OSError as error:
            raise _refused(f"Cannot write {overlay}: {error.strerror}") from None
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
    count: Annotated[int, typer.Option(min=1, max=100_000, help="How many of them")] = 500,
    json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON")] = False,
    output: Annotated[Path | None, typer.Option(help="Write the reports here, for training.metrics")] = None,
) -> None:
    """Score a model on computer-drawn phantoms, read by the worker's own code. EMX_MODEL is the default model."""
    with errors.status("Loading the model"):
        from transformers.utils import logging

        from shared.settings import settings
        from training.metrics import printed
        from training.splits import read_split
        from worker.loading import ModelError

        logging.disable_progress_bar()
        chosen = settings()
    try:
        predictions = read_split(
            model or chosen.model, split, count, adapter=chosen.adapter, quantisation=chosen.quantisation
        )
    except ModelError as error:
        raise _refused(error) from None
    if output:
        listed = ",\n".join(prediction.model_dump_json() for prediction in predictions)
        output.write_text(f"[{listed}]\n", encoding="utf-8")
    printed(predictions, json)


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
            raise _refused(error) from None


def _refused(why: object) -> typer.Exit:
    errors.print(f"[red]{escape(str(why))}[/]")
    return typer.Exit(1)


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
            raise _refused(f"The demo image wasn't read: {job['state']}. {job.get('failure')}")
        overlay = data / "demo-overlay.png"
        overlay.write_bytes(client.get(f"{where}/overlay.png").raise_for_status().content)
    _print_report(job["report"])
    console.print(f"Overlay: {overlay}")


def _print_report(report: dict[str, Any]) -> None:
    table = Table(
        "finding", "side", "xmin", "ymin", "xmax", "ymax", title="LOCATIONS (pixels)", title_justify="left"
    )
    for place in report["locations"]:
        box = place["box"]
        corners = (f"{box[side]:.0f}" for side in ("xmin", "ymin", "xmax", "ymax"))
        table.add_row(f"[{place['colour']}]■[/] {place['label']}", place["laterality"] or "", *corners)
    console.print(Panel(escape(report["findings"]), title="FINDINGS", title_align="left"))
    console.print(table if report["locations"] else "LOCATIONS: none")
    console.print(Panel(escape(report["impression"]), title="IMPRESSION", title_align="left"))
    for notice in (*report["warnings"], report["disclaimer"]):
        console.print(f"[yellow]{notice}[/]")


if __name__ == "__main__":
    app()
