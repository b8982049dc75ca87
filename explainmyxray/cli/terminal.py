"""How commands print results, errors and reports."""

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from emx_shared.contracts.report import Report

console, errors = Console(), Console(stderr=True)


class Quantisation(StrEnum):
    """The values of ``quantisation`` in emx_worker.model.loading.load_model, without importing it."""

    AUTO = "auto"
    INT4 = "int4"
    NF4 = "nf4"
    BF16 = "bf16"
    NONE = "none"


def refused(why: object) -> typer.Exit:
    """Print why a command fails, and return the exception to raise."""
    errors.print(f"[red]{escape(str(why))}[/]")
    return typer.Exit(1)


def print_line(data: Any) -> None:
    """Print a value as one line of JSON."""
    print(json.dumps(data, ensure_ascii=False), flush=True)


def print_report(report: "Report") -> None:
    """Print a report with a table of its boxes, in pixels of the original image."""
    from rich.panel import Panel
    from rich.table import Table

    table = Table(
        "finding", "side", "p", "xmin", "ymin", "xmax", "ymax", title="LOCATIONS (pixels)", title_justify="left"
    )
    for location in report.locations:
        box = location.box
        corners = (f"{corner:.0f}" for corner in (box.xmin, box.ymin, box.xmax, box.ymax))
        probability = "" if location.probability is None else f"{location.probability:.2f}"
        label = f"[{location.colour}]■[/] {location.label}"
        table.add_row(label, location.laterality or "", probability, *corners)
    console.print(Panel(escape(report.findings), title="FINDINGS", title_align="left"))
    absent = "not assessed" if report.abstained else "none"
    console.print(table if report.locations else f"LOCATIONS: {absent}")
    console.print(Panel(escape(report.impression), title="IMPRESSION", title_align="left"))
    for notice in (*report.warnings, report.disclaimer):
        console.print(f"[yellow]{escape(notice)}[/]")
