"""``emx doctor``: check whether this machine has what ExplainMyXray needs."""

import typer
from rich.markup import escape

from explainmyxray.cli.server_connection import Json
from explainmyxray.cli.terminal import console, print_line

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(json: Json = False) -> None:
    """Check everything that is needed, and say what to do where a check fails. The exit code is 1 then."""
    from emx_shared.settings import settings
    from explainmyxray.cli.doctor_checks import examine

    failed = False
    for check in examine(settings()):
        failed |= check.status == "fail"
        if json:
            print_line(check.as_dict())
            continue
        colour = _COLOURS[check.status]
        line = f"[{colour}]{check.status:4}[/] [bold]{check.name}[/]: {escape(check.found)}"
        console.print(line, highlight=False, soft_wrap=True)
        if check.todo:
            console.print(f"     {escape(check.todo)}", highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)
