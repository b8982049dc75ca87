"""The files of results: a report for each image in the image's folders, a table, lines of JSON, and boxes."""

import csv
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from explainmyxray.cli.runs.run_result import RunResult

COLUMNS = ("file", "state", "job", "abstained", "findings", "impression", "reason")
"""Of results.csv."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_NAMED = 20
"""Results without a report whose reasons a summary has."""

_LONGEST_PART = 200
"""Bytes of one name of a path; file systems allow 255, and an ending is added."""


@dataclass
class Summary:
    """How many results there are of each state, and why the first of those without a report have none."""

    states: Counter[str] = field(default_factory=Counter)
    without_report: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)

    def add(self, result: RunResult) -> None:
        """Count a result."""
        self.states[result.state] += 1
        if result.report is None:
            self.without_report += 1
            if len(self.reasons) < _NAMED:
                self.reasons.append((result.name, result.reason))


def write_results(folder: Path, names: Iterable[str], results: Iterable[RunResult]) -> Summary:
    """Write reports/, results.csv, results.ndjson and coco.json into a folder, each file whole or not at all.

    Args:
        folder: Where to.
        names: The names of all results.
        results: The results, one of which is in memory at a time.

    Raises:
        OSError: A file can't be written.
    """
    from explainmyxray.cli.runs.coco import CocoBoxes

    folder.mkdir(parents=True, exist_ok=True)
    paths, boxes, summary = output_paths(names), CocoBoxes(), Summary()
    with _whole(folder / "results.csv") as table, _whole(folder / "results.ndjson") as lines:
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        for result in results:
            summary.add(result)
            boxes.add(result)
            writer.writerow(_cells(result))
            lines.write(json.dumps(as_line(result), ensure_ascii=False) + "\n")
            if result.report:
                write_report(folder / "reports" / f"{paths[result.name]}.json", result)
    with _whole(folder / "coco.json") as file:
        json.dump(boxes.document(), file, ensure_ascii=False)
    return summary


def write_report(file: Path, result: RunResult) -> None:
    """Write one report as JSON. Raises OSError."""
    assert result.report
    file.parent.mkdir(parents=True, exist_ok=True)
    with _whole(file) as opened:
        opened.write(result.report.model_dump_json(indent=2))


def as_line(result: RunResult) -> dict[str, object]:
    """Return a result as a line of JSON has it."""
    known = {"file": result.name, "state": result.state, "job": result.job}
    if result.report:
        return {**known, "report": result.report.model_dump(mode="json")}
    return {**known, "error": result.reason}


def output_paths(names: Iterable[str]) -> dict[str, str]:
    """Choose a path without ending, below an output folder, for what is made of each named file.

    Folders are kept. A file's own ending is left out, unless two files of a folder differ by it alone.
    """
    safe = {name: safe_path(name) for name in names}
    stems = Counter(path.with_name(path.stem) for path in safe.values())
    chosen, taken = dict[str, str](), set[str]()
    for name, path in safe.items():
        stem = path.with_name(path.stem)
        wanted = str(stem if stems[stem] == 1 else path)
        free, number = wanted, 1
        while free in taken:
            number += 1
            free = f"{wanted}-{number}"
        taken.add(free)
        chosen[name] = free
    return chosen


def safe_path(name: str) -> PurePosixPath:
    """Return a relative path that stays below its folder, and that file systems accept."""
    parts = [_part(part) for part in name.split("/") if part not in ("", ".", "..")]
    return PurePosixPath(*parts) if parts else PurePosixPath("unnamed")


def _part(part: str) -> str:
    safe = _UNSAFE.sub("_", part)
    if len(safe.encode()) <= _LONGEST_PART:
        return safe
    digest = hashlib.sha256(part.encode()).hexdigest()[:12]
    stem, ending = os.path.splitext(safe)  # noqa: PTH122
    kept = stem.encode()[: _LONGEST_PART - 40].decode(errors="ignore")
    return f"{kept}-{digest}{ending[:12]}"


def _cells(result: RunResult) -> tuple[object, ...]:
    report = result.report
    if report is None:
        return (result.name, result.state, result.job or "", "", "", "", result.reason)
    terms = (" ".join(filter(None, (each.label, each.laterality))) for each in report.locations)
    findings = "; ".join(dict.fromkeys(terms))
    abstained = "yes" if report.abstained else "no"
    return (result.name, result.state, result.job or "", abstained, findings, report.impression, "")


@contextmanager
def _whole(file: Path) -> Iterator[IO[str]]:
    """Open a file that takes its place when it is complete."""
    part = file.with_name(f".{file.name[:100]}.part")
    with part.open("w", encoding="utf-8", newline="") as opened:
        yield opened
    part.replace(file)
