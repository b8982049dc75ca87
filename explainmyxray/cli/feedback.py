"""``emx feedback``: readers' feedback on reports, to train on and to count."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from explainmyxray.cli.server_connection import Json, Url, connected
from explainmyxray.cli.terminal import console, errors, print_line, refused

feedback = typer.Typer(no_args_is_help=True, help="Export what readers say of reports, count how far they agree.")


@feedback.command()
def export(
    output: Annotated[
        Path,
        typer.Option(help="Write boxes.csv and the images into this folder", file_okay=False, show_default=False),
    ],
    url: Url = None,
    json: Json = False,
) -> None:
    """Save readers' boxes with their images, as finetune_phase2 --csv DIR/boxes.csv takes them.

    The newest feedback of each reviewed job counts. An image that is already in the folder isn't fetched again;
    one that the server no longer stores is left out.
    """
    with connected(url) as client:
        try:
            found = client.feedback.export(output)
        except OSError as error:
            raise refused(f"Cannot write into {output}: {error.strerror}") from None
    if json:
        print_line(
            {
                "table": str(found.table),
                "images": found.images,
                "boxes": found.boxes,
                "missing": list(found.missing),
            }
        )
        return
    console.print(f"{found.images} images with {found.boxes} boxes written: {escape(str(found.table))}.")
    if found.missing:
        errors.print(f"{len(found.missing)} images are no longer stored. Their rows are left out.")


@feedback.command()
def agreement(url: Url = None, json: Json = False) -> None:
    """Count how far readers agree with reports, as a whole and for each finding."""
    from rich.table import Table

    with connected(url) as client:
        found = client.feedback.agreement()
    if json:
        print_line(found.model_dump(mode="json"))
        return
    console.print(f"{found.jobs} reports reviewed: {found.agree} agree, {found.disagree} disagree.")
    table = Table("finding", "agreed", "corrected", "rejected", "added")
    for each in found.findings:
        counts = (each.agreed, each.corrected, each.rejected, each.added)
        table.add_row(escape(each.label), *map(str, counts))
    if found.findings:
        console.print(table)
