"""What the commands have in common."""

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
    """The kinds that emx_worker.model.loading.load_model takes."""

    AUTO = "auto"
    INT4 = "int4"
    NF4 = "nf4"
    NONE = "none"


def refused(why: object) -> typer.Exit:
    """Say why a command can't go on; raise what this returns."""
    errors.print(f"[red]{escape(str(why))}[/]")
    return typer.Exit(1)


def print_line(data: Any) -> None:
    """One line of JSON: of several things that a command finds, each has its own."""
    print(json.dumps(data, ensure_ascii=False), flush=True)


def print_report(report: "Report") -> None:
    from rich.panel import Panel
    from rich.table import Table

    table = Table(
        "finding", "side", "p", "xmin", "ymin", "xmax", "ymax", title="LOCATIONS (pixels)", title_justify="left"
    )
    for place in report.locations:
        box = place.box
        corners = (f"{corner:.0f}" for corner in (box.xmin, box.ymin, box.xmax, box.ymax))
        sure = "" if place.probability is None else f"{place.probability:.2f}"
        table.add_row(f"[{place.colour}]■[/] {place.label}", place.laterality or "", sure, *corners)
    console.print(Panel(escape(report.findings), title="FINDINGS", title_align="left"))
    absent = "not assessed" if report.abstained else "none"
    console.print(table if report.locations else f"LOCATIONS: {absent}")
    console.print(Panel(escape(report.impression), title="IMPRESSION", title_align="left"))
    for notice in (*report.warnings, report.disclaimer):
        console.print(f"[yellow]{escape(notice)}[/]")
