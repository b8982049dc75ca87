"""Writes the table of the chaos matrix in results.md from the JSON of its runs, one file for each store.

python docs/generators/chaos_table.py directory.json s3.json
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # tests.chaos is not installed

from tests.chaos.phases import PHASES

_COUNTS = ("jobs", "lost", "double_outcomes", "owed_webhooks", "orphans")


def chaos_table(runs: list[dict[str, Any]]) -> str:
    """Return a Markdown table with a line for each row, and for each run its figures in one column."""
    rows = [{row["name"]: row for row in run["rows"]} for run in runs]
    lines = [
        f"| row | | {' | '.join(run['store'] for run in runs)} |",
        f"|---|---|{'---|' * len(runs)}",
        *(
            f"| {phase.name} | {phase.heading} | {' | '.join(_cell(found.get(phase.name)) for found in rows)} |"
            for phase in PHASES
        ),
        f"| **in all** | | {' | '.join(_total(run) for run in runs)} |",
    ]
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    """Return the jobs of a row, what broke in it, and the seconds until it had recovered and all had ended."""
    if row is None or row["skipped"]:
        return "–"
    broken = [f"{row[name]} {name}" for name in _COUNTS[1:] if row[name]]
    ended = "" if row["ended_seconds"] is None else f" / {row['ended_seconds']:.1f}"
    return ", ".join([f"{row['jobs']} jobs, {row['recovery_seconds']:.1f}{ended} s", *broken])


def _total(run: dict[str, Any]) -> str:
    counts = ", ".join(f"{run[name]} {name.replace('_', ' ')}" for name in _COUNTS)
    return f"{counts}; recovery p95 {run['recovery_p95_seconds']:.1f} s"


if __name__ == "__main__":
    print(chaos_table([json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]))
