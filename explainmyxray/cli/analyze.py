"""``emx analyze``: reports of image files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from explainmyxray.cli.bulk_reading import FileFailure, FileReport, FileResult, read_by_server, read_here
from explainmyxray.cli.image_files import ImageFile, find_images, is_single, unique_names
from explainmyxray.cli.runs.result_files import output_paths
from explainmyxray.cli.terminal import console, errors, print_line, print_report, refused


def analyze(
    images: Annotated[
        list[str], typer.Argument(help="Files, folders, ZIP archives or patterns", show_default=False)
    ],
    url: Annotated[
        str | None,
        typer.Option(help="Server that reads the images; default: EMX_URL, else this process", show_default=False),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON; for several files, one line each")
    ] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(help="Write the images with their boxes into this folder; for one file, to this .png"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write each report as JSON into this folder", file_okay=False)
    ] = None,
) -> None:
    """Read radiographs and print their reports.

    A file that can't be read is reported and doesn't stop the others; the exit code is then 1.

    A server reads many files as one batch. After an interruption, run the same command again: it continues.

    Without a server, this process reads the files, without a gateway or Redis. EMX_MODEL chooses the model.
    """
    from emx_shared.settings import settings

    files, single = find_images(images), is_single(images)
    server, destinations = url or settings().url, _Destinations(overlay, output, single, _paths(files))
    with read_by_server(server, images, files) if server else read_here(files) as results:
        done = []
        for result in _with_progress(results, len(files)):
            if isinstance(result, FileFailure) and not json:
                errors.print(f"[red]{escape(result.file.name)}: {escape(result.why)}[/]")
            written = destinations.write(result) if isinstance(result, FileReport) else []
            done.append((result, written))
            if json:
                _print_json(result, single)
            elif single and isinstance(result, FileReport):
                print_report(result.report)
                for path in written:
                    console.print(f"Written: {escape(str(path))}")
    if not json and not single:
        _print_table(done)
    failed = sum(isinstance(result, FileFailure) for result, _ in done)
    if failed:
        errors.print(f"[red]{failed} of {len(files)} have no report.[/]")
        raise typer.Exit(1)


def _with_progress(results: Iterator[FileResult], total: int) -> Iterator[FileResult]:
    """Show a progress bar on the terminal; output that is piped elsewhere stays clean."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        yield from bar.track(results, total=total)


@dataclass
class _Destinations:
    """Where overlays and reports are written, in the folders of the images."""

    overlay: Path | None
    output: Path | None
    single: bool
    paths: dict[ImageFile, str]

    def write(self, result: FileReport) -> list[Path]:
        """Write a report and its overlay, and return the files' paths. Raises typer.Exit."""
        name = self.paths[result.file]
        written = []
        if self.output:
            report = result.report.model_dump_json(indent=2)
            written.append(_write(self.output / f"{name}.json", report.encode()))
        if self.overlay and self.single and self.overlay.suffix.lower() == ".png":
            written.append(_write(self.overlay, result.overlay(), make_folder=False))
        elif self.overlay:
            written.append(_write(self.overlay / f"{name}.png", result.overlay()))
        return written


def _paths(files: list[ImageFile]) -> dict[ImageFile, str]:
    named = unique_names(files)
    paths = output_paths(named)
    return {file: paths[name] for name, file in named.items()}


def _write(path: Path, content: bytes, make_folder: bool = True) -> Path:
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise refused(f"Cannot write {path}: {error.strerror}") from None
    return path


def _print_json(result: FileResult, single: bool) -> None:
    if isinstance(result, FileFailure):
        if single:
            errors.print(f"[red]{escape(result.why)}[/]")
        else:
            print_line({"file": result.file.name, "error": result.why})
    elif single:
        print(result.report.model_dump_json(indent=2))
    else:
        job = {"job": result.job} if result.job else {}
        print_line({"file": result.file.name, **job, "report": result.report.model_dump(mode="json")})


def _print_table(done: list[tuple[FileResult, list[Path]]]) -> None:
    from rich.table import Table

    table = Table("file", "findings", "impression", "written")
    for result, written in done:
        paths = escape("\n".join(map(str, written)))
        if isinstance(result, FileFailure):
            table.add_row(escape(result.file.name), "[red]no report[/]", f"[red]{escape(result.why)}[/]", paths)
            continue
        report = result.report
        labels = ", ".join(dict.fromkeys(location.label for location in report.locations))
        findings = "not assessed" if report.abstained else labels or "none"
        table.add_row(escape(result.file.name), escape(findings), escape(report.impression), paths)
    console.print(table)
    for notice in dict.fromkeys(
        notice
        for result, _ in done
        if isinstance(result, FileReport)
        for notice in (*result.report.warnings, result.report.disclaimer)
    ):
        console.print(f"[yellow]{escape(notice)}[/]")
