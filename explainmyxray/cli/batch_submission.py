"""``emx batch run`` and ``emx batch submit``: many images, read by a server."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from explainmyxray.cli.batch_view import end, follow
from explainmyxray.cli.image_files import find_images
from explainmyxray.cli.runs.opened_run import announce, run_in_folder, run_until_done
from explainmyxray.cli.runs.result_files import Summary, write_results
from explainmyxray.cli.server_connection import Json, Url, connected
from explainmyxray.cli.terminal import console, errors, print_line, refused

if TYPE_CHECKING:
    from explainmyxray.client import Batch, BatchOptions, Client
    from explainmyxray.client.resources import ManifestType

_MANIFEST_TYPES: dict[str, "ManifestType"] = {".csv": "text/csv", ".ndjson": "application/x-ndjson"}
Images = Annotated[list[str], typer.Argument(help="Files, folders, ZIP archives or patterns", show_default=False)]
Priority = Annotated[Literal["stat", "routine", "backlog"], typer.Option(help="stat is read first, backlog last")]


def run(
    images: Images,
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder for the results, and for what is needed to continue", file_okay=False),
    ],
    priority: Priority = "backlog",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Submit again what ended without a report in an earlier call")
    ] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Read many images on a server, and write results.csv, results.ndjson, coco.json and reports/.

    After Ctrl-C, a lost connection or a reboot, run the same command again: it continues, and reads no image
    twice. New and changed files are read too; files of the same content are read once.

    The exit code is 1 if a file has no report; the results say why.
    """
    files = find_images(images)
    announcing = _announce_as_json if json else announce
    with connected(url) as client, run_in_folder(out, client, files, {"priority": priority}, announcing) as opened:
        try:
            opened.submit(retry_failed)
            opened.upload()
            opened.follow()
        finally:
            summary = write_results(out, opened.names(), opened.results())
    _print_outcome(summary, out, json)


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
    priority: Priority = "backlog",
    webhook_url: Annotated[
        str | None, typer.Option(help="Endpoint to call once, when every item has ended")
    ] = None,
    item_webhook_url: Annotated[str | None, typer.Option(help="Endpoint to call for each item")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until every item has ended")] = False,
    url: Url = None,
    json: Json = False,
) -> None:
    """Submit many images. An image that can't be read fails its own item alone.

    After an interruption, run the same command again: it continues. With --wait, the exit code is 1 if an item
    has no report.
    """
    if bool(images) == bool(manifest):
        raise typer.BadParameter("Name either images or a --manifest.")
    options: BatchOptions = {"priority": priority}
    if webhook_url:
        options["webhook_url"] = webhook_url
    if item_webhook_url:
        options["item_webhook_url"] = item_webhook_url
    with connected(url) as client:
        if manifest:
            made = _submit_manifest(client, manifest, options)
            end([follow(client, made) if wait else made], wait, json)
        else:
            _submit_files(client, images or [], options, wait, json)


def _submit_manifest(client: "Client", manifest: Path, options: "BatchOptions") -> "Batch":
    media_type = _MANIFEST_TYPES.get(manifest.suffix.lower(), "application/x-ndjson")
    try:
        content = manifest.read_bytes()
    except OSError as error:
        raise refused(error) from None
    made = client.batches.create_from_manifest(content, media_type, **options)
    announce(made)
    return made


def _submit_files(client: "Client", images: list[str], options: "BatchOptions", wait: bool, json: bool) -> None:
    files = find_images(images)
    made: list[Batch] = []
    with run_until_done("submit", images, client, files, options, _announce_and_keep(made)) as opened:
        opened.submit()
        opened.upload()
        found = [follow(client, each) if wait else client.batches.get(each) for each in made]
        problems = [result for result in opened.results() if result.job is None and not result.pending]
    for problem in problems:
        errors.print(f"[red]{escape(problem.name)}: {escape(problem.reason)}[/]")
    if problems:
        errors.print(f"[red]{len(problems)} of {len(files)} weren't submitted.[/]")
    end(found, wait, json)
    if problems:
        raise typer.Exit(1)


def _announce_and_keep(made: "list[Batch]") -> "Callable[[Batch], None]":
    def announce_and_keep(batch: "Batch") -> None:
        announce(batch)
        made.append(batch)

    return announce_and_keep


def _announce_as_json(batch: "Batch") -> None:
    print_line({"batch": batch.id, "total": batch.total})


def _print_outcome(found: Summary, out: Path, json: bool) -> None:
    total = found.states.total()
    if json:
        print_line({"out": str(out), "files": total, "counts": found.states})
    else:
        said = ", ".join(f"{count} {state}" for state, count in found.states.items())
        console.print(f"{total} files ({said}). Results: {escape(str(out))}", soft_wrap=True)
    if found.without_report:
        for name, reason in found.reasons:
            errors.print(f"[red]{escape(name)}: {escape(reason)}[/]")
        errors.print(f"[red]{found.without_report} of {total} have no report.[/] results.csv says why.")
        raise typer.Exit(1)
