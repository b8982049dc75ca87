"""The ledger's writes by name, and the points right before and right after each of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from emx_shared.ledger import object_keys

Act = Literal["write", "delete"]
Side = Literal["before", "after"]

_KEYS = {
    "open": object_keys.open_marker("*"),
    "group": object_keys.group("*", "*", "").rpartition("/")[0].rpartition("/")[0] + "/*",
    "input": object_keys.job_input("*", "*"),
    "record": object_keys.record("*"),
    "outcome": object_keys.outcome("*"),
    "feedback": object_keys.feedback("*"),
    "feedback-marker": object_keys.feedback_marker("*", "*"),
    "outbox": object_keys.outbox("*"),
    "delivery": object_keys.delivery("*"),
    "erasing": object_keys.erasing("*"),
    "upload": object_keys.upload("*", "*"),
    "used-upload": object_keys.used_upload("*", "*"),
    "page": object_keys.pages("*", "*") + "*",
    "batch-input": object_keys.batch_input("*", "*", "*"),
    "unread": object_keys.unread_batch("*", "*"),
    "cursor": object_keys.cursor("*"),
    "paused": object_keys.paused("*"),
    "resumed": object_keys.resumed("*"),
    "done": object_keys.done_markers("*") + "*",
}
"""For each name a pattern of its keys."""


def name_of(key: str) -> str | None:
    """Return the name of a key; None for what isn't a step of any operation, such as probes."""
    return next((name for name, pattern in _KEYS.items() if fnmatchcase(key, pattern)), None)


@dataclass(frozen=True)
class FaultPoint:
    """Where a process dies: right before or right after a named write, or a named deletion."""

    side: Side
    act: Act
    name: str

    def __str__(self) -> str:
        return f"{self.side}-{self.act}-{self.name}"


def points(*writes: tuple[Act, str]) -> Iterator[FaultPoint]:
    """Yield the points before and after each of these."""
    for act, name in writes:
        assert name in _KEYS, name
        for side in ("before", "after"):
            yield FaultPoint("before" if side == "before" else "after", act, name)
