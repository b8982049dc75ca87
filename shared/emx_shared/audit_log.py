"""The audit log: who did what and when, reading reports included. JSON lines, without patient data."""

import contextlib
import json
import os
import stat
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from emx_shared.contracts.times import rfc3339
from emx_shared.root_error import ExplainMyXrayError
from emx_shared.settings import Settings
from emx_shared.store.selection import folder_of

NONE, STANDARD_OUTPUT = "none", "-"


class AuditUnavailable(ExplainMyXrayError):
    """The audit log can't be written, so what it should say must not happen."""


class AuditLog:
    """Appends lines to a file, or to standard output.

    Each line goes out in one write, so that several processes may share the file, which may be rotated by renaming
    it. Only its owner can read it.
    """

    def __init__(self, settings: Settings) -> None:
        """Find out where to write: EMX_AUDIT_LOG, else ``audit.jsonl`` beside a store that is a folder."""
        self.chosen = settings.audit_log is not None
        """Whether the operator asked for a log; else it is kept only where there are API keys."""
        self.file = _place(settings)
        """None for standard output."""
        self._off = settings.audit_log == NONE
        self._lock = threading.Lock()
        self._fd: int | None = None

    def write(self, **entry: str | None) -> None:
        """Write one line, with the time. Raises AuditUnavailable."""
        if self._off:
            return
        timed = {"at": rfc3339(datetime.now(UTC)), **entry}
        line = json.dumps(timed, separators=(",", ":")).encode() + b"\n"
        try:
            with self._lock:
                if os.write(self._opened(), line) != len(line):
                    raise OSError("cut short")
        except OSError:
            raise AuditUnavailable("The audit log can't be written.") from None

    def _opened(self) -> int:
        if self.file is None:
            return sys.stdout.fileno()
        if self._fd is None or self._was_rotated():
            if self._fd is not None:
                os.close(self._fd)
            self._fd = _append_to(self.file)
        return self._fd

    def _was_rotated(self) -> bool:
        assert self._fd is not None and self.file is not None
        with contextlib.suppress(FileNotFoundError):
            return not os.path.samestat(os.fstat(self._fd), self.file.stat())
        return True


def _place(settings: Settings) -> Path | None:
    if settings.audit_log == STANDARD_OUTPUT:
        return None
    if settings.audit_log is not None:
        return Path(settings.audit_log)
    folder = folder_of(settings.store)
    return folder.resolve().parent / "audit.jsonl" if folder else None


def _append_to(file: Path) -> int:
    """Open a log to append to. A log that root makes is its folder's owner's, as the gateway must write to it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if os.geteuid() == 0 and stat.S_ISREG(os.fstat(fd).st_mode) and not os.fstat(fd).st_size:
        owner = file.parent.stat()
        os.fchown(fd, owner.st_uid, owner.st_gid)
    return fd
