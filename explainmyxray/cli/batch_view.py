"""How batches are followed and shown on the terminal."""

from datetime import timedelta
from typing import TYPE_CHECKING

import typer
from rich.markup import escape

from explainmyxray.cli.jobs import coloured
from explainmyxray.cli.terminal import console, errors, print_line

if TYPE_CHECKING:
    from explainmyxray.client import Batch, Client


def follow(client: "Client", found: "Batch") -> "Batch":
    """Wait until a batch has ended, with a progress bar, and return it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        shown = bar.add_task("", total=found.total)
        for now in client.batches.progress(found):
            bar.update(shown, completed=now.done)
    return now


def print_batch(found: "Batch", json: bool) -> None:
    """Print a batch with its counts."""
    if json:
        print_line(found.model_dump(mode="json"))
        return
    counts = ", ".join(f"{count} {escape(state)}" for state, count in found.counts.items() if count)
    left = f", about {timedelta(seconds=round(found.seconds_left))} left" if found.seconds_left else ""
    console.print(
        f"{found.id} {coloured(found.state)}: {found.done} of {found.total} have ended ({counts}){left}",
        soft_wrap=True,
    )


def end(found: "list[Batch]", waited: bool, json: bool) -> None:
    """Print batches. Of those that were waited for, every item must have a report, or the exit code is 1."""
    for each in found:
        print_batch(each, json)
    if waited and any(each.without_report for each in found):
        raise typer.Exit(1)
