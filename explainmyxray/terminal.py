"""What the commands have in common."""

from enum import StrEnum

import typer
from rich.console import Console
from rich.markup import escape

console, errors = Console(), Console(stderr=True)


class Quantisation(StrEnum):
    """The kinds that worker.loading.load_model takes."""

    AUTO = "auto"
    INT4 = "int4"
    NF4 = "nf4"
    NONE = "none"


def refused(why: object) -> typer.Exit:
    """Say why a command can't go on; raise what this returns."""
    errors.print(f"[red]{escape(str(why))}[/]")
    return typer.Exit(1)
