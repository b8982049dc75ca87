"""The id under which a request is found again in logs: the client's own, or a new one."""

import re
import uuid
from collections.abc import Mapping

REQUEST_ID, TRACE_PARENT = "x-request-id", "traceparent"
_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_TRACE = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """Return X-Request-ID, else the trace id of traceparent (W3C Trace Context), else a new id."""
    given = headers.get(REQUEST_ID.encode(), b"").decode("latin-1")
    if _ID.fullmatch(given):
        return given
    trace = _TRACE.fullmatch(headers.get(TRACE_PARENT.encode(), b"").decode("latin-1"))
    return trace[1] if trace else uuid.uuid4().hex
