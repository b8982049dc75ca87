"""A run: files are checked, submitted as batches, uploaded and followed, from wherever it was interrupted."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from explainmyxray.cli.image_files import ImageFile, unique_names
from explainmyxray.cli.runs.run_result import RunResult, result_of
from explainmyxray.cli.runs.run_state import CannotContinue, RunBatch, RunState
from explainmyxray.cli.terminal import errors

if TYPE_CHECKING:
    from explainmyxray.client import Batch, BatchOptions, Client, Upload

T = TypeVar("T")
_CONNECTIONS = 8
"""Files that are read, and uploads that are sent, at a time."""

_ROWS = 5_000
"""Images of one batch, whose reading begins while the next one is uploaded. A server accepts 100,000."""

_FRESH = 45 * 60.0
"""Seconds for which an upload's address is used; it is valid for an hour."""

_LONGEST_NAME = 255
_ERASED = "{} of this run was erased on the server. Begin a new run in another folder."


class BatchRun:
    """Many files, each of which is read once by the server however often the run is interrupted.

    A batch is created paused, with the names of uploads that haven't arrived. So its id is known at once, and the
    server keeps the uploads for as long as the batch waits for them. Once all have arrived, the batch is resumed.

    Args:
        client: The server.
        state: What is known from earlier.
        files: The files to read.
        options: Options of new batches.
        announce: Is called with each batch as soon as the server has accepted it.

    Every method may raise ApiError. Calling them again continues.
    """

    def __init__(
        self,
        client: "Client",
        state: RunState,
        files: list[ImageFile],
        options: "BatchOptions",
        announce: "Callable[[Batch], None]",
    ) -> None:
        self._client, self._state, self._options, self._announce = client, state, options, announce
        self._files = unique_names(files)
        self._of_digest: dict[str, ImageFile] = {}
        self._prepared: dict[str, tuple[Upload, float]] = {}
        self._run = state.id

    def submit(self, retry_failed: bool = False) -> None:
        """Create batches of all images that belong to none. With ``retry_failed``, those without a report too."""
        self._check_files()
        self._state.try_again(retry_failed)
        uploads = self._prepare_uploads()
        for start in range(0, len(uploads), _ROWS):
            self._state.add_batch(self._options, uploads[start : start + _ROWS])
        for batch in self._state.batches():
            if batch.id is None:
                self._create(batch)
            else:
                self._continue(batch.id)

    def upload(self) -> None:
        """Upload the images of all batches that are still paused for them, and resume these."""
        for batch in self._state.batches():
            if not batch.resumed and batch.id:
                self._upload(batch, batch.id)

    def follow(self) -> None:
        """Receive the results of all batches until these have ended."""
        for batch in self._state.batches():
            if batch.id:
                self._follow(batch, batch.id)

    def names(self) -> list[str]:
        """Return the names of all files of the run, in the order of their results."""
        return self._state.names()

    def results(self) -> Iterator[RunResult]:
        """Yield what is known of each file so far, by name."""
        return map(result_of, self._state.files())

    def _check_files(self) -> None:
        """Note the digests of files that are new or have changed."""
        changed = [name for name, file in self._files.items() if file.stamp() != self._state.stamp(name)]
        for name, (stamp, sha256, problem) in _in_parallel("Checking", lambda n: _digest(self._files[n]), changed):
            self._state.put_file(name, stamp, sha256, problem)
        for name, file in self._files.items():
            if sha256 := self._state.digest(name):
                self._of_digest[sha256] = file

    def _prepare_uploads(self) -> list[tuple[str, str, str]]:
        """Return digest, name and upload of each image that belongs to no batch, and may be uploaded."""
        pending, uploads = dict(self._state.pending()), dict[str, str]()
        preparing = _in_parallel("Submitting", lambda sha: self._client.uploads.prepare(self._key(sha)), pending)
        for sha256, found in preparing:
            if why := self._too_large(sha256, found.max_bytes):
                self._state.mark_refused(sha256, why)
            else:
                uploads[sha256] = found.id
                self._prepared[sha256] = (found, time.monotonic())
        return [(sha256, name, uploads[sha256]) for sha256, name in pending.items() if sha256 in uploads]

    def _too_large(self, sha256: str, accepted: int | None) -> str | None:
        try:
            size = self._of_digest[sha256].size()
        except (KeyError, OSError):
            return "The file is no longer there."
        if accepted is None or size <= accepted:
            return None
        return f"The file has {size} bytes; at most {accepted} are accepted."

    def _create(self, batch: RunBatch) -> None:
        from explainmyxray.client import ApiError

        named = ((f"upload:{upload}", name[-_LONGEST_NAME:]) for upload, name in self._state.rows(batch))
        manifest = "".join(json.dumps({"image": image, "name": name}) + "\n" for image, name in named).encode()
        options: BatchOptions = {**batch.options, "paused": True}
        try:
            made = self._client.batches.create_from_manifest(
                manifest, "application/x-ndjson", idempotency_key=batch.key, **options
            )
        except ApiError as error:
            if error.type == "erased":
                raise CannotContinue(_ERASED.format("A batch")) from None
            if error.status is not None and error.status < 500:
                self._state.drop_batch(batch)
            raise
        self._state.mark_submitted(batch, made.id)
        self._announce(made)

    def _continue(self, id: str) -> None:
        from explainmyxray.client import NotFound

        try:
            self._announce(self._client.batches.get(id))
        except NotFound:
            raise CannotContinue(_ERASED.format(f"The batch {id}")) from None

    def _upload(self, batch: RunBatch, id: str) -> None:
        from explainmyxray.client import Conflict

        if self._client.batches.get(id).state == "paused":
            sending = _in_parallel("Uploading", self._send, self._state.unsent(batch))
            for sha256, problem in sending:
                self._state.mark_sent(sha256, problem)
            with suppress(Conflict):  # it was cancelled meanwhile, and its results say so
                self._client.batches.resume(id)
        self._state.mark_resumed(batch)

    def _send(self, sha256: str) -> str | None:
        """Upload an image unless it has arrived. Return why it can't be uploaded."""
        from explainmyxray.client import BadImage, InvalidRequest

        upload, prepared_at = self._prepared.pop(sha256, (None, 0.0))
        if upload is None or time.monotonic() - prepared_at > _FRESH:
            upload = self._client.uploads.prepare(self._key(sha256))
        if upload.received:
            return None
        file = self._of_digest.get(sha256)
        if file is None:
            return "The file isn't among those that are named now."
        try:
            data = file.read()
            if hashlib.sha256(data).hexdigest() != sha256:
                return "The file has changed since it was submitted. Run the command again."
            self._client.uploads.send(upload, data)
        except (BadImage, InvalidRequest, OSError) as error:
            return str(error)
        return None

    def _follow(self, batch: RunBatch, id: str) -> None:
        with _bar() as bar:
            shown = bar.add_task("Reading", total=self._state.total(batch), completed=self._state.received(batch))
            for result in self._client.batches.results(id, follow=True, after=batch.cursor):
                bar.advance(shown, self._state.put_result(batch, result))
        self._state.mark_ended(batch)

    def _key(self, sha256: str) -> str:
        return f"{self._run}-{sha256}"


def _digest(file: ImageFile) -> tuple[str, str | None, str | None]:
    """Return a file's stamp with the digest of its content, or why it can't be read."""
    stamp = file.stamp()
    try:
        return stamp, file.sha256(), None
    except OSError as error:
        return stamp, None, f"The file can't be read: {error.strerror or error}"


def _in_parallel(title: str, action: Callable[[str], T], names: Collection[str]) -> Iterator[tuple[str, T]]:
    """Yield each name with what the action made of it, as it comes, and show how far it is."""
    if not names:
        return
    pool = ThreadPoolExecutor(_CONNECTIONS)
    try:
        with _bar() as bar:
            futures = {pool.submit(action, name): name for name in names}
            for future in bar.track(as_completed(futures), total=len(futures), description=title):
                yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=errors, transient=True)
