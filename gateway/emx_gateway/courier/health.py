"""``python -P -m emx_gateway.courier.health``: exits with 0 while the courier's rounds succeed."""

import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from emx_shared.settings import settings

LONGEST_SILENCE = 60.0
"""Seconds since the last round that succeeded."""

_METRIC = "emx_reconcile_last_success_timestamp_seconds"


def fault(port: int, now: float) -> str | None:
    """Return what is wrong with the courier whose metrics are on this port of this machine; None if it is well."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
    except (URLError, OSError) as error:
        return f"The courier doesn't answer: {error}"
    last = next((sample.value for family in families for sample in family.samples if sample.name == _METRIC), 0.0)
    if now - last > LONGEST_SILENCE:
        return "No round of the reconciler has succeeded for a minute. The courier's log says why."
    return None


if __name__ == "__main__":
    sys.exit(fault(settings().metrics_port, time.time()))
