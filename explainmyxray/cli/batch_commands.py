"""``emx batch``: many studies in one submission."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from explainmyxray.cli.image_files import ImageFile, find_images
from explainmyxray.cli.job_commands import coloured, print_jobs
from explainmyxray.cli.server_connection import Json, Url, connected
from explainmyxray.cli.terminal import console, errors, print_line, refused

if TYPE_CHECKING:
    from explainmyxray.client import Batch, Client
    from explainmyxray.client.resources import BatchOptions, ManifestKind

batch = typer.Typer(no_args_is_help=True, help="Batches of a server: submit, follow, fetch, cancel.")

Id = Annotated[str, typer.Argument(help="The batch's id", show_default=False)]


@batch.command()
def submit(
    images: Annotated[
        list[str] | None, typer.Argument(help="Files, folders, ZIP archives or patterns", show_default=False)
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="Instead: a CSV or NDJSON file that names uploads and images in the store", exists=True),
    ] = None,
    priority: Annotated[Literal["stat", "routine", "backlog"], typer.Option()] = "backlog",
    webhook_url: Annotated[str | None, typer.Option(help="Called once, when all have ended")] = None,
    item_webhook_url: Annotated[str | None, typer.Option(help="Called for each item")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all have ended")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Submit many studies; an image that can't be read fails its own item alone."""
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
                kind = _KINDS.get(manifest.suffix.lower(), "application/x-ndjson")
                made = client.submit_manifest(manifest.read_bytes(), kind, **options)
            else:
                files = find_images(images or [])
                made = client.submit_batch(_read(files), names=[file.name for file in files], **options)
        except OSError as error:
            raise refused(error) from None
        if wait:
            made = _follow(client, made)
    _print_batch(made, json)


_KINDS: dict[str, "ManifestKind"] = {".csv": "text/csv", ".ndjson": "application/x-ndjson"}


def _read(files: list[ImageFile]) -> Iterator[bytes]:
    from rich.progress import track

    for file in track(files, "Uploading", console=errors, transient=True):
        yield file.read()


@batch.command()
def status(
    id: Id,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all have ended")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """How far a batch is."""
    with connected(url) as client:
        found = client.batch(id)
        if wait:
            found = _follow(client, found)
    _print_batch(found, json)


@batch.command()
def results(
    id: Id,
    output: Annotated[Path | None, typer.Option(help="Write reports into this folder", file_okay=False)] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """The items with what became of them; with ``--json`` their reports too."""
    with connected(url) as client:
        found = []
        for job in client.batch_results(id):
            if json:
                print_line(job.model_dump(mode="json"))
            if output and job.report:
                try:
                    output.mkdir(parents=True, exist_ok=True)
                    (output / f"{job.id}.json").write_text(job.report.model_dump_json(indent=2))
                except OSError as error:
                    raise refused(f"Cannot write into {output}: {error.strerror}") from None
            found.append(job)
    if not json:
        print_jobs(found)


@batch.command()
def pause(id: Id, url: Url = None, json: Json = False) -> None:
    """Submit no more items; those that wait or are being read go on."""
    with connected(url) as client:
        _print_batch(client.pause_batch(id), json)


@batch.command()
def resume(id: Id, url: Url = None, json: Json = False) -> None:
    """Go on with a batch that was paused."""
    with connected(url) as client:
        _print_batch(client.resume_batch(id), json)


@batch.command()
def retry(id: Id, url: Url = None, json: Json = False) -> None:
    """Make a new batch of the items that have failed so far."""
    with connected(url) as client:
        _print_batch(client.retry_batch(id), json)


@batch.command()
def cancel(id: Id, url: Url = None, json: Json = False) -> None:
    """Cancel what hasn't ended; reports that are there stay."""
    with connected(url) as client:
        _print_batch(client.cancel_batch(id), json)


@batch.command()
def erase(
    id: Id,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Erase a batch with all its images and reports for good."""
    if not yes:
        typer.confirm("Erase all images and reports of this batch for good?", abort=True, err=True)
    with connected(url) as client:
        client.erase_batch(id)
    print_line({"id": id, "erasing": True}) if json else console.print(f"{escape(id)} is being erased.")


def _follow(client: "Client", found: "Batch") -> "Batch":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        shown = bar.add_task("", total=found.total)
        for now in client.batch_progress(found):
            bar.update(shown, completed=now.done)
    return now


def _print_batch(found: "Batch", json: bool) -> None:
    if json:
        print_line(found.model_dump(mode="json"))
        return
    counts = ", ".join(f"{count} {escape(state)}" for state, count in found.counts.items() if count)
    console.print(f"{found.id} {coloured(found.state)}: {found.done} of {found.total} have ended ({counts})")
