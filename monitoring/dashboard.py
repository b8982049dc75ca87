"""The Grafana dashboard as code: ``python monitoring/dashboard.py`` writes its JSON."""

import json
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parent / "grafana" / "dashboards" / "explainmyxray.json"
_SOURCE = {"type": "prometheus", "uid": "prometheus"}
_COLUMNS = 24


def dashboard() -> dict[str, Any]:
    """Return the dashboard, as Grafana imports it."""
    quantile = "histogram_quantile({q}, sum by (le, stage) (rate(emx_job_stage_seconds_bucket[5m])))"
    ended = "sum(rate(emx_job_outcomes_total[15m]))"
    rows = [
        (4, [
            _text("**Research software.**\n\nNot for clinical use."),
            _stat("Workers", "max(emx_workers)", "With a loaded model, heard of in the last 15 s"),
            _stat("Waiting", "sum(max by (queue) (emx_queue_depth))", "Messages in all queues"),
            _stat("Jobs a minute", "60 * sum(rate(emx_job_outcomes_total[5m]))", "That ended, however they did"),
            _stat(
                "Failed",
                f'sum(rate(emx_job_outcomes_total{{outcome="failed"}}[15m])) / {ended} or vector(0)',
                "Share of the jobs that ended in the last 15 minutes",
                "percentunit",
            ),
        ]),
        (8, [
            _series("Latency, median", {"{{stage}}": quantile.format(q=0.5)}, "By stage of a job", "s"),
            _series("Latency, 95th percentile", {"{{stage}}": quantile.format(q=0.95)}, "By stage of a job", "s"),
        ]),
        (8, [
            _series("Queues", {"{{queue}}": "max by (queue) (emx_queue_depth)"}, "Messages waiting"),
            _series(
                "Outcomes a minute",
                {"{{outcome}}": "60 * sum by (outcome) (rate(emx_job_outcomes_total[5m]))"},
                "Jobs that ended",
            ),
            _series(
                "Webhook tries a minute",
                {"{{status}}": "60 * sum by (status) (rate(emx_webhook_deliveries_total[5m]))"},
                "owed: will be tried again",
            ),
        ]),
        (8, [
            _series("Images in hand", {"{{instance}}": "emx_images_in_hand"}, "By worker"),
            _series(
                "Tokens a second",
                {"{{instance}}": "rate(emx_generated_tokens_total[1m])"},
                "Written by each worker",
            ),
        ]),
        (8, [
            _series(
                "Process memory",
                {"{{job}} {{instance}}": 'process_resident_memory_bytes{job=~"gateway|courier|worker"}'},
                "Resident",
                "bytes",
            ),
            _series(
                "Accelerator memory",
                {"{{instance}} {{device}} {{kind}}": "emx_accelerator_memory_bytes"},
                "Empty where workers run on the CPU",
                "bytes",
            ),
        ]),
    ]  # fmt: skip
    return {
        "uid": "explainmyxray",
        "title": "ExplainMyXray",
        "description": "Research software, not for clinical use",
        "tags": ["explainmyxray"],
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "schemaVersion": 41,
        "panels": _laid_out(rows),
    }


def _laid_out(rows: list[tuple[int, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    panels, y = [], 0
    for height, row in rows:
        width = _COLUMNS // len(row)
        for column, panel in enumerate(row):
            place = {"x": column * width, "y": y, "w": width, "h": height}
            panels.append({**panel, "id": len(panels) + 1, "gridPos": place})
        y += height
    return panels


def _text(content: str) -> dict[str, Any]:
    return {"type": "text", "title": "", "targets": [], "options": {"mode": "markdown", "content": content}}


def _stat(title: str, expression: str, description: str, unit: str = "short") -> dict[str, Any]:
    return {**_panel("stat", title, {title: expression}, description, unit), "options": {"colorMode": "none"}}


def _series(title: str, expressions: dict[str, str], description: str, unit: str = "short") -> dict[str, Any]:
    return _panel("timeseries", title, expressions, description, unit)


def _panel(kind: str, title: str, expressions: dict[str, str], description: str, unit: str) -> dict[str, Any]:
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for n, (legend, expression) in enumerate(expressions.items())
        ],
    }


def written() -> str:
    """Return the dashboard's JSON, as it is committed."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(written(), encoding="utf-8")
