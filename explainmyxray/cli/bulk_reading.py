"""Read many image files, by a model in this process or by a server."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from explainmyxray.cli.image_files import ImageFile, unique_names
from explainmyxray.cli.runs.opened_run import announce, run_until_done
from explainmyxray.cli.runs.run_result import RunResult
from explainmyxray.cli.server_connection import connected
from explainmyxray.cli.terminal import errors, refused

if TYPE_CHECKING:
    from emx_shared.contracts.report import Report
    from explainmyxray.client import Client
    from explainmyxray.local import Model

_CONCURRENT_FILES = 8
"""Files read at a time: a batch of the engine."""


@dataclass(frozen=True)
class FileReport:
    """A file with its report.

    Attributes:
        file: The file.
        report: Its report.
        overlay: Makes a PNG file of the image with its boxes.
        job: Id of the server's job; None if it was read in this process.
    """

    file: ImageFile
    report: "Report"
    overlay: Callable[[], bytes]
    job: str | None = None


@dataclass(frozen=True)
class FileFailure:
    """A file without a report.

    Attributes:
        file: The file.
        why: A sentence for people.
    """

    file: ImageFile
    why: str


FileResult = FileReport | FileFailure


@contextmanager
def read_by_server(url: str, arguments: list[str], files: list[ImageFile]) -> Iterator[Iterator[FileResult]]:
    """Let a server read files, several of them as a run, and yield their results in order.

    Raises:
        typer.Exit: An error that would affect every file, such as a missing key, or an interruption.
    """
    with connected(url) as client:
        if len(files) == 1:
            yield iter([_read_by(client, files[0])])
            return
        with run_until_done("analyze", arguments, client, files, {"priority": "routine"}, announce) as run:
            run.submit()
            run.upload()
            run.follow()
            named = unique_names(files)
            results = {result.name: result for result in run.results()}
            yield (_of_run(client, file, results[name]) for name, file in named.items())


def _of_run(client: "Client", file: ImageFile, result: RunResult) -> FileResult:
    if result.report is None or result.job is None:
        return FileFailure(file, result.reason)
    return FileReport(file, result.report, partial(client.jobs.overlay, result.job), result.job)


@contextmanager
def read_here(files: list[ImageFile]) -> Iterator[Iterator[FileResult]]:
    """Read files in this process, and yield their results in order.

    A single file that isn't an image fails before the model is loaded.

    Raises:
        typer.Exit: The model can't be loaded.
    """
    if len(files) == 1 and (failure := _unreadable(files[0])):
        yield iter([failure])
        return
    with errors.status("Loading the model"):
        try:
            from transformers.utils import logging

            from emx_worker.model.checkpoint import ModelError
            from explainmyxray.local import load_model
        except ImportError as error:
            raise refused(
                f"Reading in this process needs more packages ({error}): pip install 'explainmyxray[local]'. Or "
                "let a server read: --url"
            ) from None
        from emx_shared.settings import settings

        logging.disable_progress_bar()
        chosen = settings()
        try:
            model, _ = load_model(chosen.model, chosen.adapter, chosen.device, chosen.quantisation)
        except ModelError as error:
            raise refused(error) from None
    yield _read_with(model, files)


def _read_by(client: "Client", file: ImageFile) -> FileResult:
    from explainmyxray.client import BadImage, InvalidRequest, NoReport

    try:
        job = client.read(file.read())
    except (BadImage, InvalidRequest, NoReport, OSError) as error:
        return FileFailure(file, str(error))
    assert job.report
    return FileReport(file, job.report, partial(client.jobs.overlay, job), job.id)


def _read_with(model: "Model", files: list[ImageFile]) -> Iterator[FileResult]:
    from explainmyxray.local import Explanation, read_each

    remaining = iter(files)
    while chunk := list(itertools.islice(remaining, _CONCURRENT_FILES)):
        contents = [_content(file) for file in chunk]
        results = iter(read_each(model, [content for content in contents if isinstance(content, bytes)]))
        for file, content in zip(chunk, contents, strict=True):
            result = next(results) if isinstance(content, bytes) else content
            if isinstance(result, Explanation) and isinstance(content, bytes):
                yield FileReport(file, result.report, partial(_overlay, content, result.report))
            else:
                yield FileFailure(file, str(result))


def _content(file: ImageFile) -> bytes | OSError:
    try:
        return file.read()
    except OSError as error:
        return error


def _overlay(content: bytes, report: "Report") -> bytes:
    from emx_gateway.renderings.overlay import overlay_png
    from emx_shared.imaging import decode

    return overlay_png(decode(content).image, report)


def _unreadable(file: ImageFile) -> FileFailure | None:
    from emx_shared.imaging import BadImage, decode

    try:
        decode(file.read())
    except (BadImage, OSError) as error:
        return FileFailure(file, str(error))
    return None
