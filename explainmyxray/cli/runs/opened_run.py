"""Runs as commands open them: where their state is kept, and how an interruption ends."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from explainmyxray.cli.image_files import ImageFile
from explainmyxray.cli.runs.batch_run import BatchRun
from explainmyxray.cli.runs.run_state import CannotContinue, open_run
from explainmyxray.cli.terminal import errors, refused

if TYPE_CHECKING:
    from explainmyxray.client import Batch, BatchOptions, Client

INTERRUPTED = 130
"""Exit code after Ctrl-C, as of shells: 128 and the signal's number."""

_STATE = ".emx-run.sqlite"


@contextmanager
def run_in_folder(
    folder: Path,
    client: "Client",
    files: list[ImageFile],
    options: "BatchOptions",
    announce: "Callable[[Batch], None]",
) -> Iterator[BatchRun]:
    """Open the run whose results are written into a folder, where its state is kept as well.

    Raises:
        typer.Exit: The run can't be continued, or was interrupted.
    """
    from explainmyxray.client import ApiError

    try:
        with open_run(folder / _STATE, client.url) as state:
            yield BatchRun(client, state, files, options, announce)
    except (CannotContinue, OSError) as error:
        raise refused(error) from None
    except ApiError:
        errors.print("The run isn't over. Once the reason is mended, run the same command again to continue.")
        raise
    except KeyboardInterrupt:
        errors.print("\nInterrupted. Run the same command again to continue.")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def run_until_done(
    command: str,
    arguments: list[str],
    client: "Client",
    files: list[ImageFile],
    options: "BatchOptions",
    announce: "Callable[[Batch], None]",
) -> Iterator[BatchRun]:
    """Open the run of a command, whose state is kept in the user's folder until the command has succeeded.

    The same command with the same arguments continues where it was interrupted. Once it has succeeded, it begins
    anew.

    Raises:
        typer.Exit: The run can't be continued, or was interrupted.
    """
    places = [str(Path(argument).resolve()) for argument in arguments]
    named = json.dumps([command, client.url, places, options], sort_keys=True)
    runs = Path(typer.get_app_dir("explainmyxray")) / "runs"
    folder = runs / hashlib.sha256(named.encode()).hexdigest()[:20]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise refused(f"The state of this command can't be kept in {runs}: {error.strerror}") from None
    with run_in_folder(folder, client, files, options, announce) as run:
        yield run
    shutil.rmtree(folder, ignore_errors=True)


def announce(batch: "Batch") -> None:
    """Print the id of a batch at once, so that it is known whatever happens next."""
    errors.print(f"Batch {batch.id}: {batch.total} images", highlight=False)
