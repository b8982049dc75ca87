"""Scores of predicted reports.

``python -m emx_training.metrics --predictions results.json [--json] [--plots DIR]``

The file holds a list of ``Prediction`` (``evaluate/predictions.py``), as ``emx evaluate --output`` writes it;
``id``, ``truth`` and ``prediction`` will do. ``evaluate/figures.py`` defines each figure.

*Zero-shot spatial generalisation* is no figure of its own: it is these figures on the phantoms of a site of which
no training and no choice has ever seen an image (``emx evaluate --split unseen_site``), beside those on
``heldout``.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from emx_training.evaluate.figures import figures
from emx_training.evaluate.intervals import Interval, bootstrap
from emx_training.evaluate.predictions import BadPredictions, Case, read_cases
from emx_training.evaluate.scoring import Scores, combine, ratios
from emx_training.evaluate.tally import tally


def tables(scores: Scores, intervals: Mapping[str, Interval]) -> tuple[Table, Table]:
    """For a terminal: a row for each finding, and the figures of the whole with their intervals."""
    findings = Table("finding", "n", "precision", "recall", "F1", "IoU", "AP50")
    for term, counts in [*scores.terms.items(), ("all (micro)", scores.micro)]:
        told = [f"{value:.3f}" for value in ratios(counts).values()]
        known = str(counts.true_positives + counts.false_negatives)
        boxes = [f"{part[term]:.3f}" if term in part else "" for part in (scores.term_iou, scores.term_ap)]
        findings.add_row(term, known, *told, *boxes)
    whole = Table("figure", "value", "95 % interval", title=f"{scores.studies} studies", title_justify="left")
    for name, (low, high) in intervals.items():
        whole.add_row(name, f"{scores.figures[name]:.3f}", f"{low:.3f}–{high:.3f}")
    return findings, whole


def show(cases: Sequence[Case], as_json: bool, plots: Path | None) -> None:
    """Judge studies, print the scores with their intervals, and draw the plots. Raises OSError for ``plots``."""
    tallies = [tally(case) for case in cases]
    scores, intervals = combine(tallies), bootstrap(figures(tallies), len(tallies))
    if as_json:
        print(json.dumps(_summary(scores, intervals), indent=2))
    else:
        Console().print(*tables(scores, intervals), sep="\n")
    if plots:
        from emx_training.plots import draw

        for line in draw(cases, tallies, plots):
            print(line, file=sys.stderr)


def _summary(scores: Scores, intervals: Mapping[str, Interval]) -> dict[str, object]:
    """The scores with an interval right after each figure of the whole."""
    told: dict[str, object] = {}
    for name, value in scores.summary().items():
        told[name] = value
        if name in intervals:
            told[f"{name}_ci"] = intervals[name]
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Agreement of predicted reports with the true ones.",
        epilog="Zero-shot spatial generalisation is these figures on a site never seen in training: "
        "emx evaluate --split unseen_site.",
    )
    parser.add_argument("--predictions", type=Path, required=True, metavar="RESULTS.JSON")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw plots here, as PNG")
    options = parser.parse_args()
    try:
        show(read_cases(options.predictions), options.json, options.plots)
    except BadPredictions as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"The plots can't be written to {options.plots}: {error.strerror}.")


if __name__ == "__main__":
    main()
