"""``python -P -m emx_gateway.courier``: deliver webhooks, advance batches and reconcile, until stopped."""

from emx_gateway.courier.tasks import app
from emx_shared.messaging import run_celery_worker
from emx_shared.settings import settings

if __name__ == "__main__":
    run_celery_worker(app, settings().log_level)
