"""The command ``emx``: an index of its commands. Each imports the rooms that it needs when it is run, so that
``--help`` is quick."""

import typer

from explainmyxray.benchmarks.commands import bench
from explainmyxray.commands.analyze import analyze
from explainmyxray.commands.batch import batch
from explainmyxray.commands.doctor import doctor
from explainmyxray.commands.evaluate import evaluate
from explainmyxray.commands.jobs import jobs
from explainmyxray.commands.keys import keys
from explainmyxray.commands.listen import listen
from explainmyxray.commands.up import up
from explainmyxray.models import model

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
for group, name in ((jobs, "jobs"), (batch, "batch"), (keys, "keys"), (bench, "bench"), (model, "model")):
    app.add_typer(group, name=name)


if __name__ == "__main__":
    app()
