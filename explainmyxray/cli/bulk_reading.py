"""Many image files to many readings: by a model in this process, or by a server."""

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from explainmyxray.cli.image_files import ImageFile
from explainmyxray.cli.server_connection import connected
from explainmyxray.cli.terminal import errors, refused

if TYPE_CHECKING:
    from emx_shared.contracts.report import Report
    from explainmyxray.client import Client
    from explainmyxray.local import Model

_TOGETHER = 8
"""Files that are under way at a time: a batch for the engine, or requests to a server."""


@dataclass(frozen=True)
class Read:
    """A file with its report. ``overlay`` makes the PNG of the image with its boxes."""

    file: ImageFile
    report: "Report"
    overlay: Callable[[], bytes]
    job: str | None = None


@dataclass(frozen=True)
class Unread:
    file: ImageFile
    why: str


Reading = Read | Unread


@contextmanager
def read_by_server(url: str, files: list[ImageFile]) -> Iterator[Iterator[Reading]]:
    """In order. What would go wrong with every file, such as a missing key, ends it: raises typer.Exit."""
    with connected(url) as client, ThreadPoolExecutor(_TOGETHER) as pool:
        try:
            yield pool.map(partial(_ask, client), files)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _ask(client: "Client", file: ImageFile) -> Reading:
    from explainmyxray.client import BadImage, InvalidRequest, NoReport

    try:
        job = client.read(file.read())
    except (BadImage, InvalidRequest, NoReport, OSError) as error:
        return Unread(file, str(error))
    assert job.report
    return Read(file, job.report, partial(client.overlay, job), job.id)


@contextmanager
def read_here(files: list[ImageFile]) -> Iterator[Iterator[Reading]]:
    """In order. Raises typer.Exit where there is no model; a lone file that is no image doesn't wait for it."""
    if len(files) == 1 and (unread := _unreadable(files[0])):
        yield iter([unread])
        return
    with errors.status("Loading the model"):
        try:
            from transformers.utils import logging

            from emx_worker.model.loading import ModelError
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
    yield _read(model, files)


def _read(model: "Model", files: list[ImageFile]) -> Iterator[Reading]:
    from explainmyxray.local import Explanation, read_each

    waiting = iter(files)
    while chunk := list(itertools.islice(waiting, _TOGETHER)):
        contents = [_content(file) for file in chunk]
        results = iter(read_each(model, [content for content in contents if isinstance(content, bytes)]))
        for file, content in zip(chunk, contents, strict=True):
            result = next(results) if isinstance(content, bytes) else content
            if isinstance(result, Explanation) and isinstance(content, bytes):
                yield Read(file, result.report, partial(_overlay, content, result.report))
            else:
                yield Unread(file, str(result))


def _content(file: ImageFile) -> bytes | OSError:
    try:
        return file.read()
    except OSError as error:
        return error


def _overlay(content: bytes, report: "Report") -> bytes:
    from emx_gateway.renderings.overlay import overlay_png
    from emx_shared.imaging import decode

    return overlay_png(decode(content).image, report)


def _unreadable(file: ImageFile) -> Unread | None:
    from emx_shared.imaging import BadImage, decode

    try:
        decode(file.read())
    except (BadImage, OSError) as error:
        return Unread(file, str(error))
    return None
