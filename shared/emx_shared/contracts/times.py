"""How times are written: RFC 3339 in UTC with Z, as in every answer of the API."""

from datetime import UTC, datetime


def rfc3339(at: datetime) -> str:
    """Return a time as 2026-03-04T05:06:07.000008Z; ``at`` has a zone."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
