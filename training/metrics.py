"""``python -m training.metrics --predictions results.json [--json]``: scores of predicted reports.

The file holds a list of ``{"id", "truth", "prediction"}``, both reports as text; ``training/scoring.py`` defines
each figure.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from shared.grammar import MalformedReport
from training.intervals import Interval, bootstrap
from training.scoring import Prediction, Scores, combine, ratios, tally


def table(scores: Scores, intervals: Mapping[str, Interval]) -> Table:
    """For a terminal: a row for each finding, and the figures of the whole with their intervals below."""
    shown = Table("finding", "n", "precision", "recall", "F1", "IoU")
    for term, counts in [*scores.terms.items(), ("all (micro)", scores.micro)]:
        iou = scores.mean_iou if term == "all (micro)" else scores.term_iou.get(term)
        told = [f"{value:.3f}" for value in ratios(counts).values()]
        known = str(counts.true_positives + counts.false_negatives)
        shown.add_row(term, known, *told, "" if iou is None else f"{iou:.3f}")
    summary = scores.summary()
    figures = [f"{name} {summary[name]:.3f} ({low:.3f}–{high:.3f})" for name, (low, high) in intervals.items()]
    shown.caption = f"{scores.studies} studies, 95 % intervals\n" + "\n".join(figures)
    return shown


def printed(predictions: Iterable[Prediction], as_json: bool) -> None:
    """Judge predictions and print the scores, with bootstrap intervals."""
    tallies = [tally(study) for study in predictions]
    scores, intervals = combine(tallies), bootstrap(tallies)
    if as_json:
        beside = {f"{name}_ci": interval for name, interval in intervals.items()}
        print(json.dumps({**scores.summary(), **beside}, indent=2))
    else:
        Console().print(table(scores, intervals))


def main() -> None:
    parser = argparse.ArgumentParser(description="Agreement of predicted reports with the true ones.")
    parser.add_argument("--predictions", type=Path, required=True, metavar="RESULTS.JSON")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    try:
        printed(TypeAdapter(list[Prediction]).validate_json(options.predictions.read_bytes()), options.json)
    except (OSError, ValidationError, MalformedReport) as error:
        sys.exit(f"{options.predictions} can't be judged: {error}")


if __name__ == "__main__":
    main()
