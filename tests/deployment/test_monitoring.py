"""Prometheus' rules and Grafana's dashboard, checked against the metrics that exist."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

import emx_shared.prometheus_metrics
from support.paths import ROOT

MONITORING = ROOT / "monitoring"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "explainmyxray.json"


def expressions() -> list[str]:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [rule["expr"] for rule in rules] + [t["expr"] for panel in panels for t in panel["targets"]]


def test_every_metric_that_is_asked_for_exists() -> None:
    assert emx_shared.prometheus_metrics
    known = set()
    for family in REGISTRY.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        known |= {family.name + suffix for suffix in suffixes}
    asked = {name for text in expressions() for name in re.findall(r"\b(?:emx|process)_\w+", text)}
    assert asked
    assert asked <= known


def test_every_alert_says_what_to_do() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_the_dashboard_is_the_one_that_the_code_writes() -> None:
    found = importlib.util.spec_from_file_location("dashboard", MONITORING / "dashboard.py")
    assert found and found.loader
    module: Any = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert DASHBOARD.read_text() == module.written()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here")
@pytest.mark.parametrize(
    "arguments", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")], ids=" ".join
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    answer = subprocess.run(["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_the_scraped_names_are_services_of_the_compose_file() -> None:
    services = yaml.safe_load(Path(ROOT / "docker-compose.yml").read_text())["services"]
    for job in yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]:
        (found,) = job["dns_sd_configs"]
        assert found["names"] == [job["job_name"]]
        assert job["job_name"] in services
