"""The audit log: who did what and when, reads of reports included. JSON lines, without anything of a patient."""

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from emx_gateway.auth.authenticator import Caller


class Audit:
    """Appends to a file. Each line goes out in one write, so that several gateways may share it."""

    def __init__(self, file: Path | None) -> None:
        """``file`` None: nothing is written."""
        self._lock = threading.Lock()
        self._stream = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._stream = file.open("ab", buffering=0)

    def note(self, caller: Caller, action: str, subject: str) -> None:
        """``action`` such as ``report.read``; ``subject`` the id of a job, a batch, a delivery."""
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


async def _audit(request: Request) -> Audit:  # a plain function would cost a turn in the pool of threads
    found = request.app.state.audit
    assert isinstance(found, Audit)
    return found


Audits = Annotated[Audit, Depends(_audit)]
