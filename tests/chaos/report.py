"""The matrix's result: as JSON for programs, as a table for people."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.table import Table

from tests.chaos.bench import Row

_COUNTS = ("jobs", "lost", "double_outcomes", "owed_webhooks", "orphans")


@dataclass(frozen=True)
class Result:
    """All rows of one run on one store."""

    store: str
    workers: str
    seconds: float
    rows: tuple[Row, ...]

    @property
    def holds(self) -> bool:
        """Whether every invariant held in every row."""
        return all(row.holds for row in self.rows)

    @property
    def recovery_p95_seconds(self) -> float | None:
        """The 95th percentile of ``recovery_seconds`` over the rows, by nearest rank; None without rows."""
        found = sorted(row.recovery_seconds for row in self.rows if row.recovery_seconds is not None)
        return found[math.ceil(0.95 * len(found)) - 1] if found else None

    def as_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        rows = [{name: value for name, value in asdict(row).items() if name != "healed_at"} for row in self.rows]
        return {
            "store": self.store,
            "workers": self.workers,
            "seconds": round(self.seconds, 1),
            "rows": rows,
            **{name: sum(getattr(row, name) for row in self.rows) for name in _COUNTS},
            "recovery_p95_seconds": self.recovery_p95_seconds,
        }

    def as_table(self) -> Group:
        """Return a table with a line for each row and their sums, and the rows' notes below it."""
        table = Table(title=f"Store: {self.store}. Workers: {self.workers}. {self.seconds:.0f} s")
        table.add_column("row", no_wrap=True)
        for name in ("jobs", "lost", "double", "owed", "orphans", "recovery", "all ended"):
            table.add_column(name, justify="right")
        for row in self.rows:
            table.add_row(*_cells(row), style=None if row.holds else "red")
        total = self.as_json()
        p95 = _seconds(self.recovery_p95_seconds)
        table.add_section()
        table.add_row("sum; p95 of recovery", *(str(total[name]) for name in _COUNTS), p95, "")
        return Group(table, *(f"{row.name}: {'; '.join(row.notes)}" for row in self.rows if row.notes))


def _cells(row: Row) -> Sequence[str]:
    if row.skipped:
        return (row.name, "skipped", *[""] * 6)
    counts = (str(getattr(row, name)) for name in _COUNTS)
    return (row.name, *counts, _seconds(row.recovery_seconds), _seconds(row.ended_seconds))


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"
