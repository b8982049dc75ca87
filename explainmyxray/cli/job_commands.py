"""``emx jobs``: what a server was given to read."""

import itertools
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from explainmyxray.cli.server_connection import Json, Url, connected
from explainmyxray.cli.terminal import console, errors, print_line, print_report

if TYPE_CHECKING:
    from explainmyxray.client import Job
    from explainmyxray.client.resources import JobFilter

jobs = typer.Typer(no_args_is_help=True, help="Jobs of a server: list, show, watch, cancel, erase.")

Id = Annotated[str, typer.Argument(help="The job's id", show_default=False)]
Ids = Annotated[list[str], typer.Argument(help="Ids of jobs", show_default=False)]
State = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
_COLOURS = {"succeeded": "green", "failed": "red", "running": "cyan", "cancelled": "yellow", "expired": "yellow"}


@jobs.command("list")
def list_jobs(
    state: Annotated[State | None, typer.Option()] = None,
    priority: Annotated[Literal["stat", "routine", "backlog"] | None, typer.Option()] = None,
    study: Annotated[str | None, typer.Option(help="Of this study")] = None,
    patient: Annotated[str | None, typer.Option(help="Of this patient")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many")] = 20,
    url: Url = None,
    json: Json = False,
) -> None:
    """Jobs, the newest first."""
    wanted: JobFilter = {}
    if state:
        wanted["state"] = state
    if priority:
        wanted["priority"] = priority
    if study:
        wanted["study"] = study
    if patient:
        wanted["patient"] = patient
    with connected(url) as client:
        found = list(itertools.islice(client.jobs(**wanted), limit))
    if json:
        for job in found:
            print_line(job.model_dump(mode="json"))
        return
    print_jobs(found)
    if len(found) == limit:
        errors.print(f"There may be more than these {limit}: --limit")


@jobs.command()
def show(id: Id, url: Url = None, json: Json = False) -> None:
    """A job with its report."""
    with connected(url) as client:
        job = client.job(id)
    _print_job(job, json)


@jobs.command()
def watch(id: Id, url: Url = None, json: Json = False) -> None:
    """The report's text as it is written, then the report. Exit code 1 where there is none in the end."""
    from explainmyxray.client import Ended, StateChanged, TextWritten

    written = ""
    with connected(url) as client:
        for event in client.events(id):
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
                    errors.print("\n[dim]another worker begins again[/]")
                    print(written[: event.offset], end="")
                written = written[: event.offset] + event.text
                print(event.text, end="", flush=True)


@jobs.command()
def cancel(ids: Ids, url: Url = None, json: Json = False) -> None:
    """Cancel jobs that haven't ended."""
    from explainmyxray.client import Conflict, NotFound

    failed = False
    with connected(url) as client:
        for id in ids:
            try:
                job = client.cancel(id)
            except (Conflict, NotFound) as error:
                failed = True
                errors.print(f"[red]{escape(id)}: {escape(str(error))}[/]")
            else:
                print_line(job.model_dump(mode="json")) if json else console.print(f"{job.id} {job.state}")
    if failed:
        raise typer.Exit(1)


@jobs.command()
def erase(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of jobs", show_default=False)] = None,
    study: Annotated[str | None, typer.Option(help="All jobs of this study")] = None,
    patient: Annotated[str | None, typer.Option(help="All jobs of this patient")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Erase images and reports for good."""
    from explainmyxray.client import NotFound

    if (bool(ids) + (study is not None) + (patient is not None)) != 1:
        raise typer.BadParameter("Name ids, or --study, or --patient.")
    what = f"{len(ids)} jobs" if ids else f"all jobs of the {'study' if study is not None else 'patient'}"
    if not yes:
        typer.confirm(f"Erase images and reports of {what} for good?", abort=True, err=True)
    erased, missing = 0, []
    with connected(url) as client:
        if study is not None:
            erased = client.erase_study(study)
        elif patient is not None:
            erased = client.erase_patient(patient)
        for id in ids or []:
            try:
                client.erase(id)
                erased += 1
            except NotFound as error:
                missing.append(id)
                errors.print(f"[red]{escape(id)}: {escape(str(error))}[/]")
    print_line({"erased": erased}) if json else console.print(f"{erased} erased.")
    if missing:
        raise typer.Exit(1)


def print_jobs(found: "list[Job]") -> None:
    from rich.table import Column, Table

    table = Table(Column("id", no_wrap=True, min_width=36), "state", "priority", "submitted", "")
    for job in found:
        at = f"{job.submitted_at.astimezone():%m-%d %H:%M}"
        note = job.failure.message if job.failure else job.study or ""
        table.add_row(job.id, coloured(job.state), job.priority, at, escape(note))
    console.print(table if found else "No jobs.")


def coloured(state: str) -> str:
    colour = _COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else escape(state)


def _print_job(job: "Job", json: bool) -> None:
    if json:
        print_line(job.model_dump(mode="json"))
        return
    print_jobs([job])
    if job.report:
        print_report(job.report)
