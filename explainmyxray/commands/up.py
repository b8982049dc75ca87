"""``emx up``: everything on one machine."""

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from explainmyxray.terminal import console, print_report, refused


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
        _show_demo(system.url, system.data, once)
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


def _show_demo(url: str, data: Path, must: bool) -> None:
    """Send the bundled image through the HTTP API, as any client would."""
    from explainmyxray.client import ApiError, Client, Forbidden, NoReport, Unauthenticated
    from shared.settings import ROOT

    try:
        with Client(url) as client, console.status("Reading the demo image"):
            job = client.read(ROOT / "models" / "demo" / "sample.png")
            overlay = data / "demo-overlay.png"
            overlay.write_bytes(client.overlay(job))
    except (Unauthenticated, Forbidden) as error:
        if must:
            raise refused(error) from None
        console.print(f"The demo image wasn't read: {error} EMX_API_KEY is shown where it is set.")
        return
    except (ApiError, NoReport) as error:
        raise refused(f"The demo image wasn't read: {error}") from None
    assert job.report
    print_report(job.report)
    console.print(f"Overlay: {overlay}")
