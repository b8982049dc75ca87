"""``emx doctor``: check whether this machine has what ExplainMyXray needs."""

from typing import Annotated

import typer
from rich.markup import escape

from explainmyxray.cli.server_connection import Json
from explainmyxray.cli.terminal import console, print_line

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    store: Annotated[
        str | None,
        typer.Option(
            help="Try only whether this store can hold a ledger: file:DIR or s3+http(s)://HOST[:PORT]/BUCKET; "
            "EMX_S3_ACCESS_KEY and EMX_S3_SECRET_KEY are its keys. Nothing of the trial stays",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Check everything that is needed, and say what to do where a check fails. The exit code is 1 then."""
    from emx_shared.settings import settings
    from explainmyxray.cli.doctor_checks import examine
    from explainmyxray.cli.store_trial import try_store

    failed = False
    chosen = settings()
    for check in try_store(chosen.model_copy(update={"store": store})) if store else examine(chosen):
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
