"""Runs the worker: ``python -P -m emx_worker`` loads the model, then reads images until it is stopped."""

from emx_shared.messaging import run_celery_worker
from emx_shared.settings import settings
from emx_worker.celery_app import app

if __name__ == "__main__":
    run_celery_worker(app, settings().log_level)
