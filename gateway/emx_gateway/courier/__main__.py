"""``python -P -m emx_gateway.courier``: deliver webhooks, advance batches and reconcile, until stopped."""

from emx_gateway.courier.tasks import app
from emx_shared.messaging import run_celery_worker

if __name__ == "__main__":
    run_celery_worker(app)
