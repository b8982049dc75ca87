"""``emx batch``: submit many images at once, follow the batch, and fetch its reports."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from explainmyxray.cli.image_files import ImageFile, find_images
from explainmyxray.cli.jobs import coloured
from explainmyxray.cli.server_connection import Json, Url, connected
from explainmyxray.cli.terminal import console, errors, print_line, refused

if TYPE_CHECKING:
    from explainmyxray.client import Batch, BatchOptions, BatchResult, Client
    from explainmyxray.client.resources import ManifestType

batch = typer.Typer(no_args_is_help=True, help="Submit many images at once, follow them, and fetch their reports.")

Id = Annotated[str, typer.Argument(help="The batch's id", show_default=False)]
_MANIFEST_TYPES: dict[str, "ManifestType"] = {".csv": "text/csv", ".ndjson": "application/x-ndjson"}


@batch.command()
def submit(
    images: Annotated[
        list[str] | None, typer.Argument(help="Files, folders, ZIP archives or patterns", show_default=False)
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Instead of images: a CSV or NDJSON file that names uploads and images in the server's store",
            exists=True,
        ),
    ] = None,
    priority: Annotated[
        Literal["stat", "routine", "backlog"], typer.Option(help="stat is read first, backlog last")
    ] = "backlog",
    webhook_url: Annotated[
        str | None, typer.Option(help="Endpoint to call once, when every item has ended")
    ] = None,
    item_webhook_url: Annotated[str | None, typer.Option(help="Endpoint to call for each item")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every item has ended")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Submit many images. An image that can't be read fails its own item alone."""
    if bool(images) == bool(manifest):
        raise typer.BadParameter("Name either images or a --manifest.")
    options: BatchOptions = {"priority": priority}
    if webhook_url:
        options["webhook_url"] = webhook_url
    if item_webhook_url:
        options["item_webhook_url"] = item_webhook_url
    with connected(url) as client:
        try:
            if manifest:
                media_type = _MANIFEST_TYPES.get(manifest.suffix.lower(), "application/x-ndjson")
                made = client.batches.create_from_manifest(manifest.read_bytes(), media_type, **options)
            else:
                files = find_images(images or [])
                made = client.batches.create(_contents(files), names=[file.name for file in files], **options)
        except OSError as error:
            raise refused(error) from None
        if wait:
            made = _follow(client, made)
    _print_batch(made, json)


@batch.command()
def status(
    id: Id,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every item has ended")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Show a batch's state and progress."""
    with connected(url) as client:
        found = client.batches.get(id)
        if wait:
            found = _follow(client, found)
    _print_batch(found, json)


@batch.command()
def results(
    id: Id,
    output: Annotated[
        Path | None, typer.Option(help="Write each report as JSON into this folder", file_okay=False)
    ] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """List the rows that have ended. With --json, each line contains the row's report."""
    with connected(url) as client:
        found = []
        for result in client.batches.results(id):
            if json:
                print_line(result.model_dump(mode="json"))
            else:
                found.append(result)
            if output and result.report:
                try:
                    output.mkdir(parents=True, exist_ok=True)
                    report = result.report.model_dump_json(indent=2)
                    (output / f"{result.id}.json").write_text(report, encoding="utf-8")
                except OSError as error:
                    raise refused(f"Cannot write into {output}: {error.strerror}") from None
    if not json:
        _print_results(found)


@batch.command()
def pause(id: Id, url: Url = None, json: Json = False) -> None:
    """Submit no more items of a batch. Items that are queued or running continue."""
    with connected(url) as client:
        _print_batch(client.batches.pause(id), json)


@batch.command()
def resume(id: Id, url: Url = None, json: Json = False) -> None:
    """Resume a paused batch."""
    with connected(url) as client:
        _print_batch(client.batches.resume(id), json)


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
        _print_batch(client.batches.retry(id, include_permanent=include_permanent), json)


@batch.command()
def cancel(id: Id, url: Url = None, json: Json = False) -> None:
    """Cancel every item that hasn't ended. Existing reports stay."""
    with connected(url) as client:
        _print_batch(client.batches.cancel(id), json)


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


def _contents(files: list[ImageFile]) -> Iterator[bytes]:
    """Read the files one by one, with a progress bar. Raises OSError."""
    from rich.progress import track

    for file in track(files, "Uploading", console=errors, transient=True):
        yield file.read()


def _follow(client: "Client", found: "Batch") -> "Batch":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        shown = bar.add_task("", total=found.total)
        for now in client.batches.progress(found):
            bar.update(shown, completed=now.done)
    return now


def _print_batch(found: "Batch", json: bool) -> None:
    if json:
        print_line(found.model_dump(mode="json"))
        return
    counts = ", ".join(f"{count} {escape(state)}" for state, count in found.counts.items() if count)
    console.print(f"{found.id} {coloured(found.state)}: {found.done} of {found.total} have ended ({counts})")


def _print_results(found: "list[BatchResult]") -> None:
    from rich.table import Column, Table

    table = Table("row", "name", Column("job", no_wrap=True, min_width=36), "state", "")
    for result in found:
        note = result.failure.message if result.failure else ""
        table.add_row(str(result.row), escape(result.name or ""), result.id, coloured(result.state), escape(note))
    console.print(table if found else "No item has ended yet.")
