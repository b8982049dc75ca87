"""``emx up``: everything on one machine."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from explainmyxray.cli.server_connection import Json
from explainmyxray.cli.terminal import console, errors, print_line, print_report, refused

if TYPE_CHECKING:
    from explainmyxray.client import Job
    from explainmyxray.supervisor import System


def up(
    port: Annotated[
        int, typer.Option(help="Port of gateway and workstation, on 127.0.0.1", min=1, max=65535)
    ] = 8000,
    data: Annotated[Path, typer.Option(help="Where images, reports and logs are kept")] = Path("data"),
    once: Annotated[bool, typer.Option("--once", help="Read the demo image, then stop")] = False,
    json: Json = False,
) -> None:
    """Start everything on this machine, read the demo image, then serve until Ctrl-C."""
    from explainmyxray.supervisor import CannotStart, System

    system = System(port, data.resolve())
    said = errors if json else console
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with said.status("Starting") as status:
            system.start()
            for missing in system.wait_until_ready():
                status.update(f"Starting; waiting for {missing}")
            status.update("Reading the demo image")
            job = _read_demo(system.url, once)
            overlay = _keep_overlay(system, job) if job else None
        if json:
            print_line(_told(system, job, overlay))
        elif job and job.report:
            print_report(job.report)
            console.print(f"Overlay: {overlay}")
        if not once:
            if not json:
                _say_where(system)
            system.watch()
    except CannotStart as error:
        raise refused(error) from None
    except KeyboardInterrupt:
        said.print("\nStopping.")
    finally:
        system.stop()


def _read_demo(url: str, must: bool) -> "Job | None":
    """Send the bundled image through the HTTP API, as any client would. None where that takes another key."""
    from emx_shared.demo_model import DEMO_IMAGE
    from explainmyxray.client import ApiError, Client, Forbidden, NoReport, Unauthenticated

    try:
        with Client(url) as client:
            return client.read(DEMO_IMAGE)
    except (Unauthenticated, Forbidden) as error:
        if must:
            raise refused(error) from None
        errors.print(f"The demo image wasn't read: {error} EMX_API_KEY is shown where it is set.")
        return None
    except (ApiError, NoReport) as error:
        raise refused(f"The demo image wasn't read: {error}") from None


def _keep_overlay(system: "System", job: "Job") -> Path:
    from explainmyxray.client import ApiError, Client

    overlay = system.data / "demo-overlay.png"
    try:
        with Client(system.url) as client:
            overlay.write_bytes(client.overlay(job))
    except ApiError as error:
        raise refused(f"The demo image wasn't drawn: {error}") from None
    return overlay


def _told(system: "System", job: "Job | None", overlay: Path | None) -> dict[str, Any]:
    return {
        "url": system.url,
        "docs": f"{system.url}/docs",
        "logs": str(system.logs),
        "metrics": system.metrics,
        "demo": job.model_dump(mode="json") if job else None,
        "overlay": str(overlay) if overlay else None,
    }


def _say_where(system: "System") -> None:
    console.print(f"\nWorkstation: [bold]{system.url}[/]   API: {system.url}/docs   Logs: {system.logs}")
    console.print(f"Metrics:     {'   '.join(system.metrics.values())}\nCtrl-C stops everything.")
