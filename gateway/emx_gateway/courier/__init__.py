"""The gateway's Celery side: webhooks, batches and reconciling."""
