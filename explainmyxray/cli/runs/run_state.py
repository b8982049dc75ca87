"""What a run knows of its files, images and batches, in one SQLite file that survives any interruption."""

import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emx_shared.root_error import ExplainMyXrayError

if TYPE_CHECKING:
    from explainmyxray.client import BatchOptions, BatchResult

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (id TEXT NOT NULL, server TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, stamp TEXT, sha256 TEXT, problem TEXT);
CREATE TABLE IF NOT EXISTS images (
    sha256 TEXT PRIMARY KEY, name TEXT, batch INTEGER, row INTEGER, upload TEXT, sent INTEGER NOT NULL DEFAULT 0,
    problem TEXT, state TEXT, result TEXT
);
CREATE INDEX IF NOT EXISTS rows ON images (batch, row);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL, options TEXT NOT NULL, id TEXT,
    resumed INTEGER NOT NULL DEFAULT 0, cursor TEXT, ended INTEGER NOT NULL DEFAULT 0
);
"""
_PENDING = "problem IS NULL AND batch IS NULL"
_RETRIED = ("failed", "expired", "cancelled")


class CannotContinue(ExplainMyXrayError):
    """Another process works on this run, or the run belongs to another server; the text says what to do."""


@dataclass(frozen=True)
class RunBatch:
    """A batch of a run.

    Attributes:
        number: Its number in the run.
        key: The idempotency key under which it is submitted.
        options: Its options.
        id: Its id on the server; None until the server has answered.
        resumed: Whether all its images were uploaded, and the batch resumed.
        cursor: Place of the last result received.
        ended: Whether all its results were received.
    """

    number: int
    key: str
    options: "BatchOptions"
    id: str | None
    resumed: bool
    cursor: str | None
    ended: bool


@dataclass(frozen=True)
class FileState:
    """A file of a run with what became of its image.

    Attributes:
        name: Its name.
        problem: Why it wasn't submitted; None if it was, or will be.
        result: The server's result in JSON; None without one.
    """

    name: str
    problem: str | None
    result: str | None


class RunState:
    """The state of one run. One process at a time works on it; files with the same content are one image."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    @property
    def id(self) -> str:
        """The run's id, which makes its idempotency keys differ from other runs'."""
        return str(self._one("SELECT id FROM run"))

    def stamp(self, name: str) -> str | None:
        """Return what a file looked like when its content was read last; None if that failed."""
        found = self._one("SELECT stamp FROM files WHERE name = ? AND sha256 IS NOT NULL", name)
        return None if found is None else str(found)

    def put_file(self, name: str, stamp: str, sha256: str | None, problem: str | None) -> None:
        """Note a file with the digest of its content, or why it can't be read."""
        with self._database:
            row = (name, stamp, sha256, problem)
            self._database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", row)
            if sha256:
                self._database.execute("INSERT OR IGNORE INTO images (sha256) VALUES (?)", (sha256,))

    def digest(self, name: str) -> str | None:
        """Return the SHA-256 of a file's content."""
        found = self._one("SELECT sha256 FROM files WHERE name = ?", name)
        return None if found is None else str(found)

    def try_again(self, failed: bool) -> None:
        """Make images pending that couldn't be submitted; with ``failed``, those too that have no report."""
        with self._database:
            self._database.execute("UPDATE images SET problem = NULL WHERE batch IS NULL")
            if failed:
                self._database.execute(
                    "UPDATE images SET problem = NULL, batch = NULL, sent = 0, state = NULL, result = NULL "
                    f"WHERE state IN ({','.join('?' * len(_RETRIED))})",
                    _RETRIED,
                )

    def pending(self) -> list[tuple[str, str]]:
        """Return the digests of images that belong to no batch yet, each with the first file's name, by name."""
        found = self._database.execute(
            f"SELECT sha256, (SELECT MIN(name) FROM files f WHERE f.sha256 = i.sha256) first FROM images i "
            f"WHERE {_PENDING} AND first IS NOT NULL ORDER BY first"
        )
        return [(str(sha256), str(name)) for sha256, name in found]

    def add_batch(self, options: "BatchOptions", images: Iterable[tuple[str, str, str]]) -> None:
        """Note a batch that is about to be submitted, with its images: digest, name and upload, in order."""
        with self._database:
            made = self._database.execute(
                "INSERT INTO batches (key, options) VALUES (?, ?)", (str(uuid.uuid4()), json.dumps(options))
            )
            self._database.executemany(
                "UPDATE images SET batch = ?, row = ?, name = ?, upload = ?, sent = 0 WHERE sha256 = ?",
                [(made.lastrowid, row, name, upload, sha) for row, (sha, name, upload) in enumerate(images)],
            )

    def drop_batch(self, batch: RunBatch) -> None:
        """Forget a batch that the server refused."""
        with self._database:
            self._database.execute("UPDATE images SET batch = NULL WHERE batch = ?", (batch.number,))
            self._database.execute("DELETE FROM batches WHERE number = ?", (batch.number,))

    def batches(self) -> list[RunBatch]:
        """Return the run's batches that haven't ended, in order."""
        found = self._database.execute(
            "SELECT number, key, options, id, resumed, cursor, ended FROM batches WHERE NOT ended ORDER BY number"
        )
        return [
            RunBatch(number, key, json.loads(options), id, bool(resumed), cursor, bool(ended))
            for number, key, options, id, resumed, cursor, ended in found
        ]

    def rows(self, batch: RunBatch) -> Iterator[tuple[str, str]]:
        """Yield the upload and the name of each of a batch's rows, in order."""
        yield from self._database.execute(
            "SELECT upload, name FROM images WHERE batch = ? ORDER BY row", (batch.number,)
        )

    def unsent(self, batch: RunBatch) -> list[str]:
        """Return the digests of a batch's images that may not have been uploaded."""
        found = self._database.execute(
            "SELECT sha256 FROM images WHERE batch = ? AND NOT sent AND problem IS NULL ORDER BY row",
            (batch.number,),
        )
        return [str(sha256) for (sha256,) in found]

    def mark_submitted(self, batch: RunBatch, id: str) -> None:
        """Note the id that the server gave a batch."""
        self._write("UPDATE batches SET id = ? WHERE number = ?", id, batch.number)

    def mark_sent(self, sha256: str, problem: str | None) -> None:
        """Note that an image was uploaded, or why it can't be."""
        self._write("UPDATE images SET sent = ?, problem = ? WHERE sha256 = ?", problem is None, problem, sha256)

    def mark_refused(self, sha256: str, problem: str) -> None:
        """Note why an image won't be submitted."""
        self._write("UPDATE images SET problem = ? WHERE sha256 = ?", problem, sha256)

    def mark_resumed(self, batch: RunBatch) -> None:
        """Note that the server reads a batch now."""
        self._write("UPDATE batches SET resumed = 1 WHERE number = ?", batch.number)
        # Results may be received again: their commits need not wait for the disk.
        self._database.execute("PRAGMA synchronous = NORMAL")

    def put_result(self, batch: RunBatch, result: "BatchResult") -> bool:
        """Note a result, and the place from which the stream resumes. Return whether it is new."""
        query = "SELECT state IS NULL FROM images WHERE batch = ? AND row = ?"
        new = bool(self._one(query, batch.number, result.row))
        with self._database:
            self._database.execute(
                "UPDATE images SET state = ?, result = ? WHERE batch = ? AND row = ?",
                (result.state, result.model_dump_json(), batch.number, result.row),
            )
            self._database.execute("UPDATE batches SET cursor = ? WHERE number = ?", (result.cursor, batch.number))

        return new

    def mark_ended(self, batch: RunBatch) -> None:
        """Note that all results of a batch were received."""
        self._write("UPDATE batches SET ended = 1 WHERE number = ?", batch.number)

    def received(self, batch: RunBatch) -> int:
        """Return how many results of a batch were received."""
        return int(str(self._one("SELECT COUNT(*) FROM images WHERE batch = ? AND state NOTNULL", batch.number)))

    def total(self, batch: RunBatch) -> int:
        """Return how many rows a batch has."""
        return int(str(self._one("SELECT COUNT(*) FROM images WHERE batch = ?", batch.number)))

    def names(self) -> list[str]:
        """Return the names of all files, in order."""
        return [str(name) for (name,) in self._database.execute("SELECT name FROM files ORDER BY name")]

    def files(self) -> Iterator[FileState]:
        """Yield all files with what became of them, by name."""
        for name, problem, result in self._database.execute(
            "SELECT f.name, COALESCE(f.problem, i.problem), i.result FROM files f "
            "LEFT JOIN images i ON i.sha256 = f.sha256 ORDER BY f.name"
        ):
            yield FileState(name, problem, result)

    def _one(self, query: str, *values: object) -> object:
        found = self._database.execute(query, values).fetchone()
        return found and found[0]

    def _write(self, query: str, *values: object) -> None:
        with self._database:
            self._database.execute(query, values)


@contextmanager
def open_run(file: Path, server: str) -> Iterator[RunState]:
    """Open the state of a run, or begin one.

    Args:
        file: The state's file.
        server: Address of the server that reads the images.

    Raises:
        CannotContinue: Another process works on the run, or it belongs to another server.
        OSError: The file can't be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))  # names of files may name patients
    database = sqlite3.connect(file, timeout=0)
    try:
        _begin(database, file, server)
        yield RunState(database)
    finally:
        database.close()


def _begin(database: sqlite3.Connection, file: Path, server: str) -> None:
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript("BEGIN IMMEDIATE;" + _SCHEMA + "COMMIT;")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise OSError(f"The run's state {file} can't be opened: {error}") from None
        raise CannotContinue("Another emx works on this run. Wait for it, or choose another folder.") from None
    except sqlite3.DatabaseError as error:
        raise OSError(f"The run's state {file} can't be read: {error}. Choose another folder.") from None
    found = database.execute("SELECT server FROM run").fetchone()
    if found is None:
        with database:
            database.execute("INSERT INTO run VALUES (?, ?)", (uuid.uuid4().hex, server))
    elif found[0] != server:
        raise CannotContinue(
            f"The images of this run are read by {found[0]}, not by {server}. Name that server with --url, or "
            "choose another folder."
        )
