"""Print scores of predicted reports.

``python -m emx_training.metrics --predictions results.json [--json] [--plots DIR]``

The file has a list of ``Prediction`` (``evaluate/predictions.py``), as ``emx evaluate --output`` writes it; only
``id``, ``truth`` and ``prediction`` are required. ``evaluate/figures.py`` defines each figure.

*Zero-shot spatial generalisation* isn't a figure of its own: it means these figures on the phantoms of a site of
which neither training nor any choice has seen an image (``emx evaluate --split unseen_site``), compared with those
on ``heldout``.
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
    """Return two tables for a terminal: a row for each finding, and the overall figures with their intervals."""
    findings = Table("finding", "n", "precision", "recall", "F1", "IoU", "AP50")
    for term, counts in [*scores.terms.items(), ("all (micro)", scores.micro)]:
        shown = [f"{value:.3f}" for value in ratios(counts).values()]
        true = str(counts.true_positives + counts.false_negatives)
        boxes = [f"{part[term]:.3f}" if term in part else "" for part in (scores.term_iou, scores.term_ap)]
        findings.add_row(term, true, *shown, *boxes)
    whole = Table("figure", "value", "95 % interval", title=f"{scores.images} images", title_justify="left")
    for name, (low, high) in intervals.items():
        whole.add_row(name, f"{scores.figures[name]:.3f}", f"{low:.3f}–{high:.3f}")
    return findings, whole


def print_scores(cases: Sequence[Case], as_json: bool, plots: Path | None) -> None:
    """Score images, print the scores with their intervals, and draw the plots.

    Args:
        cases: the images with their reports.
        as_json: print JSON instead of tables.
        plots: folder to draw into; None to draw nothing.

    Raises:
        OSError: if the plots can't be written.
    """
    tallies = [tally(case) for case in cases]
    scores, intervals = combine(tallies), bootstrap(figures(tallies), len(tallies))
    if as_json:
        print(json.dumps(_summary(scores, intervals), indent=2))
    else:
        Console().print(*tables(scores, intervals), sep="\n")
    if plots:
        from emx_training.plots import draw_plots

        for line in draw_plots(cases, tallies, plots):
            print(line, file=sys.stderr)


def _summary(scores: Scores, intervals: Mapping[str, Interval]) -> dict[str, object]:
    """Return the scores, with an interval right after each overall figure."""
    summary: dict[str, object] = {}
    for name, value in scores.summary().items():
        summary[name] = value
        if name in intervals:
            summary[f"{name}_ci"] = intervals[name]
    return summary


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description="Score the agreement of predicted reports with the true ones.",
        epilog="For zero-shot spatial generalisation, score a site that training has never seen: "
        "emx evaluate --split unseen_site.",
    )
    parser.add_argument("--predictions", type=Path, required=True, metavar="RESULTS.JSON", help="results file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw plots into this folder, as PNG")
    options = parser.parse_args()
    try:
        print_scores(read_cases(options.predictions), options.json, options.plots)
    except BadPredictions as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"The plots can't be written to {options.plots} ({error.strerror}): choose another folder.")


if __name__ == "__main__":
    main()
