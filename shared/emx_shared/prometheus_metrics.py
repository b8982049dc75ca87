"""Prometheus metrics: every name in one place, after the naming rules of prometheus.io."""

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600, 14400)

STAGE_SECONDS = Histogram(
    "emx_job_stage_seconds",
    "Latency of a job by stage: queued, decode, prefill, generate, total",
    ["stage"],
    buckets=_SECONDS,
)
OUTCOMES = Counter("emx_job_outcomes_total", "Jobs that this process ended, by outcome", ["outcome"])
SUBMITTED = Counter("emx_jobs_submitted_total", "Jobs accepted by this gateway", ["priority"])
REFUSED = Counter("emx_submissions_refused_total", "Submissions refused by this gateway", ["status"])
QUEUE_DEPTH = Gauge("emx_queue_depth", "Messages waiting in each queue", ["queue"])
REDIS_UP = Gauge("emx_redis_up", "Whether Redis answers this gateway: 1 or 0")
WORKERS = Gauge("emx_workers", "Workers with a loaded model")
DELIVERIES = Counter(
    "emx_webhook_deliveries_total", "Tries to deliver a webhook, by what came of them", ["status"]
)
IMAGES_IN_HAND = Gauge("emx_images_in_hand", "Images that this worker is reading")
TOKENS = Counter("emx_generated_tokens_total", "Tokens that this worker has written")
ACCELERATOR_MEMORY = Gauge(
    "emx_accelerator_memory_bytes",
    "Accelerator memory by kind: allocated, reserved and peak of this process, total of the device",
    ["device", "kind"],
)
LAST_ROUND = Gauge("emx_reconcile_last_success_timestamp_seconds", "When reconciling last got through")


def serve_metrics(host: str, port: int) -> None:
    """Serve /metrics of this process, process_resident_memory_bytes included, unless ``port`` is 0."""
    if port:
        start_http_server(port, host, REGISTRY)
