"""What a request leaves in the audit log: who did what, from where, or was refused it."""

import threading
import time
from dataclasses import dataclass, field

from fastapi import Request

from emx_gateway.auth.authenticator import Caller
from emx_shared.audit_log import AuditLog

_ANONYMOUS_REFUSALS = 60
"""Refusals a minute that callers without a valid key can leave: they must not fill the disk."""


@dataclass
class Auditor:
    """Writes the gateway's lines. One for its whole life."""

    log: AuditLog
    _anonymous: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, request: Request, caller: Caller | None, action: str, subject: str, keyed: bool) -> None:
        """Write a line where the operator asked for a log, or there are keys. Raises AuditUnavailable."""
        if self.log.chosen or keyed:
            self.log.write(
                tenant=caller.tenant if caller else None,
                key=caller.key if caller else None,
                address=request.client.host if request.client else None,
                request=request.state.request_id,
                action=action,
                subject=subject,
            )

    def may_note_anonymous(self) -> bool:
        """Return whether another refusal of an unknown caller may be written now."""
        now = time.monotonic()
        with self._lock:
            self._anonymous = [at for at in self._anonymous if now - at < 60]
            if len(self._anonymous) >= _ANONYMOUS_REFUSALS:
                return False
            self._anonymous.append(now)
            return True


@dataclass(frozen=True)
class RequestAudit:
    """The audit of one request."""

    auditor: Auditor
    request: Request

    def note(self, caller: Caller, action: str, subject: str) -> None:
        """Write one line, before what it says is done or shown.

        Args:
            caller: who does it.
            action: what, such as ``report.read``.
            subject: id of the job, batch or delivery that it is done to.

        Raises:
            AuditUnavailable: then it must not be done.
        """
        self.auditor.note(self.request, caller, action, subject, keyed=caller.key is not None)


def note_refusal(request: Request, status: int, why: str) -> None:
    """Write that a request was refused: whoever isn't admitted, and what is admitted but not accepted."""
    auditor: Auditor = request.app.state.auditor
    caller: Caller | None = getattr(request.state, "caller", None)
    if status in (401, 403) or (caller and request.method not in ("GET", "HEAD") and 400 <= status < 500):
        keyed = status == 401 or (caller is not None and caller.key is not None)
        if caller or auditor.may_note_anonymous():
            auditor.note(request, caller, "refused", why, keyed)
