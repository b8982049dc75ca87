"""The command ``emx``: an index of its commands. Each imports the rooms that it needs when it is run, so that
``--help`` is quick."""

from importlib import import_module
from importlib.util import find_spec

import typer

from explainmyxray.cli.analyze import analyze
from explainmyxray.cli.batch_commands import batch
from explainmyxray.cli.doctor import doctor
from explainmyxray.cli.evaluate import evaluate
from explainmyxray.cli.job_commands import jobs
from explainmyxray.cli.key_commands import keys
from explainmyxray.cli.listen import listen
from explainmyxray.cli.model_commands import model
from explainmyxray.cli.up import up

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,
    help="ExplainMyXray: chest radiographs in, structured reports with boxes out. Research software, not for "
    "clinical use.",
)


@app.callback()
def _commands() -> None:
    """Keep `emx COMMAND`, however many commands there are."""


for command in (up, analyze, evaluate, listen, doctor):
    app.command()(command)
for group, name in ((jobs, "jobs"), (batch, "batch"), (keys, "keys"), (model, "model")):
    app.add_typer(group, name=name)

if find_spec("emx_benchmarks"):  # of a clone; the wheel has none
    app.add_typer(import_module("emx_benchmarks.commands").bench, name="bench")


if __name__ == "__main__":
    app()
