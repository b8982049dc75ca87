"""The command ``emx`` and an index of its commands.

A command imports what it needs when it runs, so that ``--help`` is quick and the base packages suffice.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

import typer

from emx_shared.version import __version__
from explainmyxray.cli.admin import admin
from explainmyxray.cli.analyze import analyze
from explainmyxray.cli.batch import batch
from explainmyxray.cli.data import data
from explainmyxray.cli.doctor import doctor
from explainmyxray.cli.evaluate import evaluate
from explainmyxray.cli.feedback import feedback
from explainmyxray.cli.jobs import jobs
from explainmyxray.cli.keys import keys
from explainmyxray.cli.listen import listen
from explainmyxray.cli.model import model
from explainmyxray.cli.up import up

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,
    help="Send a chest X-ray; get a structured report with a box around every finding. Research software, not for "
    "clinical use.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"emx {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


for command in (up, analyze, evaluate, listen, doctor):
    app.command()(command)
for group, name in (
    (jobs, "jobs"),
    (batch, "batch"),
    (feedback, "feedback"),
    (keys, "keys"),
    (admin, "admin"),
    (model, "model"),
    (data, "data"),
):
    app.add_typer(group, name=name)

if find_spec("emx_benchmarks"):  # only in a clone, not in the wheel
    app.add_typer(import_module("emx_benchmarks.commands").bench, name="bench")


if __name__ == "__main__":
    app()
