"""``emx up``: run the whole system on one machine."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from explainmyxray.cli.server_connection import Json
from explainmyxray.cli.terminal import console, errors, print_line, print_report, refused

if TYPE_CHECKING:
    from explainmyxray.client import Job
    from explainmyxray.supervisor import Supervisor


def up(
    port: Annotated[
        int, typer.Option(help="Port of the gateway and the workstation, on 127.0.0.1", min=1, max=65535)
    ] = 8000,
    data: Annotated[Path, typer.Option(help="Folder for images, reports and logs")] = Path("data"),
    once: Annotated[bool, typer.Option("--once", help="Read the demo image, then stop")] = False,
    json: Json = False,
) -> None:
    """Start everything on this machine, read the demo image, then serve until Ctrl-C."""
    from explainmyxray.supervisor import CannotStart, Supervisor

    system = Supervisor(port, data.resolve())
    messages = errors if json else console
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with messages.status("Starting") as status:
            system.start()
            for missing in system.wait_until_ready():
                status.update(f"Starting; waiting for {missing}")
            status.update("Reading the demo image")
            job = _read_demo(system.url, once)
            overlay = _write_overlay(system, job) if job else None
        if json:
            print_line(_summary(system, job, overlay))
        elif job and job.report:
            print_report(job.report)
            console.print(f"Overlay: {overlay}")
        if not once:
            if not json:
                _print_addresses(system)
            system.watch()
    except CannotStart as error:
        raise refused(error) from None
    except KeyboardInterrupt:
        messages.print("\nStopping.")
    finally:
        system.stop()


def _read_demo(url: str, must: bool) -> "Job | None":
    """Have the demo image read through the HTTP API. Returns None if that needs another API key."""
    from emx_shared.demo_files import DEMO_IMAGE
    from explainmyxray.client import ApiError, BadImage, Client, Forbidden, NoReport, Unauthenticated

    try:
        with Client(url) as client:
            return client.read(DEMO_IMAGE)
    except (Unauthenticated, Forbidden) as error:
        if must:
            raise refused(error) from None
        errors.print(
            f"The demo image wasn't read: {error} To have it read, set EMX_API_KEY to a key of this server."
        )
        return None
    except (ApiError, BadImage, NoReport) as error:
        raise refused(f"The demo image wasn't read: {error}") from None


def _write_overlay(system: "Supervisor", job: "Job") -> Path:
    from explainmyxray.client import ApiError, Client

    overlay = system.data / "demo-overlay.png"
    try:
        with Client(system.url) as client:
            overlay.write_bytes(client.jobs.overlay(job))
    except ApiError as error:
        raise refused(f"The demo image wasn't drawn: {error}") from None
    return overlay


def _summary(system: "Supervisor", job: "Job | None", overlay: Path | None) -> dict[str, Any]:
    return {
        "url": system.url,
        "docs": f"{system.url}/docs",
        "logs": str(system.logs),
        "metrics": system.metrics,
        "demo": job.model_dump(mode="json") if job else None,
        "overlay": str(overlay) if overlay else None,
    }


def _print_addresses(system: "Supervisor") -> None:
    console.print(f"\nWorkstation: [bold]{system.url}[/]   API: {system.url}/docs   Logs: {system.logs}")
    console.print(f"Metrics:     {'   '.join(system.metrics.values())}\nCtrl-C stops everything.")
