"""``python -m explainmyxray``: the command ``emx`` where it isn't installed, as in the images."""

from explainmyxray.cli.main import app

app()
