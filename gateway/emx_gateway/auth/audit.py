"""The audit log: who did what and when, reading reports included. JSON lines, without patient data."""

import json
import threading
from datetime import UTC, datetime
from pathlib import Path

from emx_gateway.auth.authenticator import Caller


class AuditLog:
    """Appends to a file. Each line goes out in one write, so that several gateways may share it."""

    def __init__(self, file: Path | None) -> None:
        """Open the log. Nothing is written if ``file`` is None."""
        self._lock = threading.Lock()
        self._stream = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._stream = file.open("ab", buffering=0)

    def note(self, caller: Caller, action: str, subject: str) -> None:
        """Write one line.

        Args:
            caller: who did it.
            action: what, such as ``report.read``.
            subject: id of the job, batch or delivery that it was done to.
        """
        if self._stream is None:
            return
        entry = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "tenant": caller.tenant,
            "key": caller.key,
            "action": action,
            "subject": subject,
        }
        with self._lock:
            self._stream.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
