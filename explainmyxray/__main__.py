"""Runs the command ``emx`` as ``python -m explainmyxray``, where it isn't installed, such as in the images."""

from explainmyxray.cli.main import app

app()
