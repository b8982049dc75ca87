"""``emx jobs``: list, show, watch, cancel and erase a server's jobs."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from explainmyxray.cli.server_connection import Json, Url, connected
from explainmyxray.cli.terminal import console, errors, print_line, print_report

if TYPE_CHECKING:
    from explainmyxray.client import Job, JobFilter

jobs = typer.Typer(no_args_is_help=True, help="List, show, watch, cancel and erase a server's jobs.")

Id = Annotated[str, typer.Argument(help="The job's id", show_default=False)]
Ids = Annotated[list[str], typer.Argument(help="The jobs' ids", show_default=False)]
State = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
_COLOURS = {
    "succeeded": "green",
    "completed": "green",
    "failed": "red",
    "running": "cyan",
    "cancelled": "yellow",
    "expired": "yellow",
}


@jobs.command("list")
def list_jobs(
    state: Annotated[State | None, typer.Option(help="Only jobs in this state")] = None,
    priority: Annotated[
        Literal["stat", "routine", "backlog"] | None, typer.Option(help="Only jobs of this priority")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Only jobs of this study")] = None,
    patient: Annotated[str | None, typer.Option(help="Only jobs of this patient")] = None,
    finding: Annotated[
        str | None,
        typer.Option(
            help="Only jobs whose report has this finding, such as pleural_effusion; none for reports without any"
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number of jobs to list")] = 20,
    url: Url = None,
    json: Json = False,
) -> None:
    """List jobs without their reports, newest first."""
    filters: JobFilter = {}
    if state:
        filters["state"] = state
    if priority:
        filters["priority"] = priority
    if study:
        filters["study"] = study
    if patient:
        filters["patient"] = patient
    if finding:
        filters["finding"] = finding
    with connected(url) as client:
        found = list(itertools.islice(client.jobs.list(**filters), limit))
    if json:
        for job in found:
            print_line(job.model_dump(mode="json"))
        return
    print_jobs(found)
    if len(found) == limit:
        errors.print(f"There may be more than {limit} jobs. List more with --limit.")


@jobs.command()
def show(id: Id, url: Url = None, json: Json = False) -> None:
    """Show a job with its report."""
    with connected(url) as client:
        job = client.jobs.get(id)
    _print_job(job, json)


@jobs.command()
def watch(id: Id, url: Url = None, json: Json = False) -> None:
    """Print a job's text while it is written, then its report. The exit code is 1 if it ends without a report."""
    from explainmyxray.client import Ended, StateChanged, TextWritten

    written = ""
    with connected(url) as client:
        for event in client.jobs.events(id):
            if isinstance(event, Ended):
                if written and not json:
                    print()
                _print_job(event.job, json)
                if event.job.report is None:
                    raise typer.Exit(1)
            elif json:
                print_line({"event": "state" if isinstance(event, StateChanged) else "text", **vars(event)})
            elif isinstance(event, StateChanged):
                errors.print(f"[dim]{escape(event.state)}[/]")
            elif isinstance(event, TextWritten):
                if event.offset < len(written):
                    errors.print("\n[dim]Another worker begins again.[/]")
                    print(written[: event.offset], end="")
                written = written[: event.offset] + event.text
                print(event.text, end="", flush=True)


@jobs.command()
def cancel(ids: Ids, url: Url = None, json: Json = False) -> None:
    """Cancel jobs that are queued or running. The exit code is 1 if any job can't be cancelled."""
    from explainmyxray.client import Conflict, NotFound

    failed = False
    with connected(url) as client:
        for id in ids:
            try:
                job = client.jobs.cancel(id)
            except (Conflict, NotFound) as error:
                failed = True
                errors.print(f"[red]{escape(id)}: {escape(str(error))}[/]")
            else:
                print_line(job.model_dump(mode="json")) if json else console.print(f"{job.id} {job.state}")
    if failed:
        raise typer.Exit(1)


@jobs.command()
def export(
    output: Annotated[Path, typer.Argument(help="ZIP file to write", show_default=False, dir_okay=False)],
    study: Annotated[str | None, typer.Option(help="Export all jobs of this study")] = None,
    patient: Annotated[str | None, typer.Option(help="Export all jobs of this patient")] = None,
    url: Url = None,
) -> None:
    """Save all that is stored of a study or a patient: requests, reports, images and webhooks."""
    if (study is None) == (patient is None):
        raise typer.BadParameter("Name either --study or --patient.")
    with connected(url) as client:
        content = (
            client.jobs.export_study(study) if study is not None else client.jobs.export_patient(patient or "")
        )
    output.write_bytes(content)
    console.print(f"{len(content)} bytes written to {escape(str(output))}.")


@jobs.command()
def erase(
    ids: Annotated[list[str] | None, typer.Argument(help="The jobs' ids", show_default=False)] = None,
    study: Annotated[str | None, typer.Option(help="Erase all jobs of this study")] = None,
    patient: Annotated[str | None, typer.Option(help="Erase all jobs of this patient")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask for confirmation")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Erase images and reports permanently. The exit code is 1 if any job doesn't exist."""
    from explainmyxray.client import NotFound

    if (bool(ids) + (study is not None) + (patient is not None)) != 1:
        raise typer.BadParameter("Name either ids, or --study, or --patient.")
    what = f"{len(ids)} jobs" if ids else f"all jobs of the {'study' if study is not None else 'patient'}"
    if not yes:
        typer.confirm(f"Erase the images and reports of {what} permanently?", abort=True, err=True)
    erased, missing = 0, []
    with connected(url) as client:
        if study is not None:
            erased = client.jobs.erase_study(study)
        elif patient is not None:
            erased = client.jobs.erase_patient(patient)
        for id in ids or []:
            try:
                client.jobs.erase(id)
                erased += 1
            except NotFound as error:
                missing.append(id)
                errors.print(f"[red]{escape(id)}: {escape(str(error))}[/]")
    print_line({"erased": erased}) if json else console.print(f"{erased} erased.")
    if missing:
        raise typer.Exit(1)


def coloured(state: str) -> str:
    """Return a state in its colour, as Rich's markup."""
    colour = _COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else escape(state)


def print_jobs(found: "list[Job]") -> None:
    """Print a table of jobs."""
    from rich.table import Column, Table

    table = Table(Column("id", no_wrap=True, min_width=36), "state", "priority", "submitted", "")
    for job in found:
        at = f"{job.submitted_at.astimezone():%m-%d %H:%M}"
        note = job.failure.message if job.failure else job.name or job.study or ""
        table.add_row(job.id, coloured(job.state), job.priority, at, escape(note))
    console.print(table if found else "No jobs.")


def _print_job(job: "Job", json: bool) -> None:
    if json:
        print_line(job.model_dump(mode="json"))
        return
    print_jobs([job])
    if job.report:
        print_report(job.report)
