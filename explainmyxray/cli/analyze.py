"""``emx analyze``: reports of image files."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from explainmyxray.cli.bulk_reading import Read, Reading, Unread, read_by_server, read_here
from explainmyxray.cli.image_files import ImageFile, find_images, is_single
from explainmyxray.cli.terminal import console, errors, print_line, print_report, refused


def analyze(
    images: Annotated[
        list[str], typer.Argument(help="Files, folders, ZIP archives or patterns", show_default=False)
    ],
    url: Annotated[
        str | None,
        typer.Option(help="Let this server read them; default: EMX_URL, else this process", show_default=False),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON; of several files, a line for each")
    ] = False,
    overlay: Annotated[
        Path | None,
        typer.Option(help="Write the images with their boxes into this folder; of one file, to this .png"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the reports as JSON into this folder", file_okay=False)
    ] = None,
) -> None:
    """Read radiographs. A file that can't be read is told of and doesn't stop the others; the exit code is then 1.

    Without a server they are read in this process, without gateway or Redis; EMX_MODEL chooses another model.
    """
    from emx_shared.settings import settings

    files, single = find_images(images), is_single(images)
    server, places = url or settings().url, _Places(overlay, output, single)
    with read_by_server(server, files) if server else read_here(files) as readings:
        done = []
        for reading in _shown(readings, len(files)):
            if isinstance(reading, Unread) and not json:
                errors.print(f"[red]{escape(reading.file.name)}: {escape(reading.why)}[/]")
            written = places.write(reading) if isinstance(reading, Read) else []
            done.append((reading, written))
            if json:
                _print_json(reading, single)
            elif single and isinstance(reading, Read):
                print_report(reading.report)
                for path in written:
                    console.print(f"Written: {escape(str(path))}")
    if not json and not single:
        _print_table(done)
    failed = sum(isinstance(reading, Unread) for reading, _ in done)
    if failed:
        errors.print(f"[red]{failed} of {len(files)} have no report.[/]")
        raise typer.Exit(1)


def _shown(readings: Iterator[Reading], total: int) -> Iterator[Reading]:
    """With a bar on the terminal meanwhile; what is piped elsewhere stays clean."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("Reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        yield from bar.track(readings, total=total)


@dataclass
class _Places:
    """Where overlays and reports are written. Two files of one name don't overwrite each other."""

    overlay: Path | None
    output: Path | None
    single: bool
    _names: dict[str, int] = field(default_factory=dict)

    def write(self, reading: Read) -> list[Path]:
        """The files that were written. Raises typer.Exit."""
        name = self._name(reading.file)
        written = []
        if self.output:
            report = reading.report.model_dump_json(indent=2)
            written.append(_write(self.output / f"{name}.json", report.encode(), self.output))
        if self.overlay and self.single and self.overlay.suffix.lower() == ".png":
            written.append(_write(self.overlay, reading.overlay()))
        elif self.overlay:
            written.append(_write(self.overlay / f"{name}.png", reading.overlay(), self.overlay))
        return written

    def _name(self, file: ImageFile) -> str:
        again = self._names[file.stem] = self._names.get(file.stem, 0) + 1
        return file.stem if again == 1 else f"{file.stem}-{again}"


def _write(path: Path, content: bytes, folder: Path | None = None) -> Path:
    try:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise refused(f"Cannot write {path}: {error.strerror}") from None
    return path


def _print_json(reading: Reading, single: bool) -> None:
    if isinstance(reading, Unread):
        if single:
            errors.print(f"[red]{escape(reading.why)}[/]")
        else:
            print_line({"file": reading.file.name, "error": reading.why})
    elif single:
        print(reading.report.model_dump_json(indent=2))
    else:
        job = {"job": reading.job} if reading.job else {}
        print_line({"file": reading.file.name, **job, "report": reading.report.model_dump(mode="json")})


def _print_table(done: list[tuple[Reading, list[Path]]]) -> None:
    from rich.table import Table

    table = Table("file", "findings", "impression", "written")
    for reading, written in done:
        paths = escape("\n".join(map(str, written)))
        if isinstance(reading, Unread):
            table.add_row(escape(reading.file.name), "[red]no report[/]", f"[red]{escape(reading.why)}[/]", paths)
            continue
        report = reading.report
        labels = ", ".join(dict.fromkeys(place.label for place in report.locations))
        found = "not assessed" if report.abstained else labels or "none"
        table.add_row(escape(reading.file.name), escape(found), escape(report.impression), paths)
    console.print(table)
    for notice in dict.fromkeys(
        notice
        for reading, _ in done
        if isinstance(reading, Read)
        for notice in (*reading.report.warnings, reading.report.disclaimer)
    ):
        console.print(f"[yellow]{escape(notice)}[/]")
