"""Writes reference/metrics.md from the metrics' declarations and the alert rules."""

import re
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import Counter, Gauge, Histogram

from emx_shared import prometheus_metrics

ROOT = Path(__file__).resolve().parents[2]

_TEMPLATE = re.compile(r"\{\{.*?\}\}")
"""A value that Prometheus fills in."""

_HEAD = """# Metrics and alerts

Generated from `shared/emx_shared/prometheus_metrics.py` and `monitoring/alerts.yml`. The gateway serves its
metrics at `/metrics`; courier and worker serve theirs on the port `EMX_METRICS_PORT`. Each process also reports
`process_resident_memory_bytes` and the other standard metrics of the Python client.

## Metrics

| metric | type | labels | |
| --- | --- | --- | --- |
"""


def metrics() -> dict[str, Counter | Gauge | Histogram]:
    """Return each metric by the name under which Prometheus sees it."""
    found = [m for m in vars(prometheus_metrics).values() if isinstance(m, Counter | Gauge | Histogram)]
    return {_name(metric): metric for metric in found}


def metrics_reference() -> str:
    """Return the page."""
    text = _HEAD
    for name, metric in metrics().items():
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        text += f"| `{name}` | {metric._type} | {labels} | {metric._documentation} |\n"
    text += "\n## Alerts\n\n| alert | severity | after | what it means | what to do |\n"
    text += "| --- | --- | --- | --- | --- |\n"
    for rule in alerts():
        said = rule["annotations"]
        cells = (
            f"`{rule['alert']}`",
            rule["labels"]["severity"],
            rule.get("for", "at once"),
            said["summary"],
            _TEMPLATE.sub("N", said.get("description", "")),
        )
        text += f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
    return text


def alerts() -> list[dict[str, Any]]:
    """Return the alert rules."""
    rules = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]


def _name(metric: Counter | Gauge | Histogram) -> str:
    return f"{metric._name}_total" if isinstance(metric, Counter) else str(metric._name)
