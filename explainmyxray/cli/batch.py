"""``emx batch``: list batches, follow them, fetch their reports, pause, retry, cancel and erase them."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from explainmyxray.cli.batch_submission import run, submit
from explainmyxray.cli.batch_view import end, follow, print_batch
from explainmyxray.cli.jobs import coloured
from explainmyxray.cli.runs.result_files import write_results
from explainmyxray.cli.runs.run_result import RunResult, named_result
from explainmyxray.cli.server_connection import Json, Url, connected
from explainmyxray.cli.terminal import console, errors, print_line, refused

if TYPE_CHECKING:
    from explainmyxray.client import BatchResult

batch = typer.Typer(no_args_is_help=True, help="Submit many images at once, follow them, and fetch their reports.")

Id = Annotated[str, typer.Argument(help="The batch's id", show_default=False)]

batch.command()(run)
batch.command()(submit)


@batch.command("list")
def list_batches(
    limit: Annotated[int, typer.Option(min=1, help="Largest number of batches to list")] = 20,
    url: Url = None,
    json: Json = False,
) -> None:
    """List batches, newest first."""
    from rich.table import Column, Table

    with connected(url) as client:
        found = list(itertools.islice(client.batches.list(), limit))
    if json:
        for each in found:
            print_line(each.model_dump(mode="json"))
        return
    table = Table(Column("id", no_wrap=True, min_width=36), "state", "submitted", "ended", "with a report")
    for each in found:
        at = f"{each.submitted_at.astimezone():%Y-%m-%d %H:%M}"
        reports = str(each.counts.get("succeeded", 0))
        table.add_row(each.id, coloured(each.state), at, f"{each.done} of {each.total}", reports)
    console.print(table if found else "No batches.")
    if len(found) == limit:
        errors.print(f"There may be more than {limit} batches. List more with --limit.")


@batch.command()
def status(
    id: Id,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every item has ended")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Show a batch's state and progress. With --wait, the exit code is 1 if an item has no report."""
    with connected(url) as client:
        found = client.batches.get(id)
        if wait:
            found = follow(client, found)
    end([found], wait, json)


@batch.command()
def results(
    id: Id,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write results.csv, results.ndjson, coco.json and reports/ into this folder", file_okay=False
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for the others until all have ended")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """List the rows that have ended. With --json, each line contains the row's report."""
    with connected(url) as client:
        found = []
        for result in client.batches.results(id, follow):
            if json:
                print_line(result.model_dump(mode="json"))
            found.append(result)
    found.sort(key=lambda result: result.row)
    if output:
        try:
            named = list(_named(found))
            write_results(output, [result.name for result in named], named)
        except OSError as error:
            raise refused(f"Cannot write into {output}: {error.strerror}") from None
    if not json:
        _print_results(found)


@batch.command()
def pause(id: Id, url: Url = None, json: Json = False) -> None:
    """Submit no more items of a batch. Items that are queued or running continue."""
    with connected(url) as client:
        print_batch(client.batches.pause(id), json)


@batch.command()
def resume(id: Id, url: Url = None, json: Json = False) -> None:
    """Resume a paused batch."""
    with connected(url) as client:
        print_batch(client.batches.resume(id), json)


@batch.command()
def retry(
    id: Id,
    include_permanent: Annotated[
        bool,
        typer.Option("--include-permanent", help="Also items whose image would fail again, such as damaged files"),
    ] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Submit the items that have failed so far as a new batch."""
    with connected(url) as client:
        print_batch(client.batches.retry(id, include_permanent=include_permanent), json)


@batch.command()
def cancel(id: Id, url: Url = None, json: Json = False) -> None:
    """Cancel every item that hasn't ended. Existing reports stay."""
    with connected(url) as client:
        print_batch(client.batches.cancel(id), json)


@batch.command()
def erase(
    id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask for confirmation")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Erase a batch with all its images and reports permanently."""
    if not yes:
        typer.confirm("Erase all images and reports of this batch permanently?", abort=True, err=True)
    with connected(url) as client:
        client.batches.erase(id)
    print_line({"id": id, "erasing": True}) if json else console.print(f"{escape(id)} is being erased.")


def _named(found: "list[BatchResult]") -> Iterator[RunResult]:
    """Name rows for the files made of them: two rows of one name, and rows without a name, by their numbers."""
    names = Counter(result.name for result in found)
    for result in found:
        once = result.name and names[result.name] == 1
        numbered = f"{result.name} (row {result.row})" if result.name else f"row {result.row}"
        yield named_result(str(result.name) if once else numbered, result)


def _print_results(found: "list[BatchResult]") -> None:
    from rich.table import Column, Table

    table = Table("row", "name", Column("job", no_wrap=True, min_width=36), "state", "")
    for result in found:
        note = result.failure.message if result.failure else ""
        table.add_row(str(result.row), escape(result.name or ""), result.id, coloured(result.state), escape(note))
    console.print(table if found else "No item has ended yet.")
