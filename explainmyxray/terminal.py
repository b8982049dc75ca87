"""What the commands print on."""

import typer
from rich.console import Console
from rich.markup import escape

console, errors = Console(), Console(stderr=True)


def refused(why: object) -> typer.Exit:
    """Say why a command can't go on; raise what this returns."""
    errors.print(f"[red]{escape(str(why))}[/]")
    return typer.Exit(1)
