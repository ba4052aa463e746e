"""The dashboard and the alerts ask for metrics that the service has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import yaml

DOCKER = Path(__file__).parents[2] / "docker"
METRIC = re.compile(r"\b(?:lungseg|process)_[a-z_]+")


def asked_for() -> set[str]:
    dashboard = json.loads((DOCKER / "grafana/dashboards/lungseg.json").read_text())
    rules = yaml.safe_load((DOCKER / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [rule["expr"] for rule in rules]
    return {name for expression in expressions for name in METRIC.findall(expression)}


def test_every_metric_that_is_asked_for_is_there(client: httpx.Client, grey_png: bytes) -> None:
    client.post("/segment", content=grey_png)
    text = client.get("/metrics").text
    help_of = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    exposed = help_of | set(re.findall(r"^([a-z_]+)", text, re.MULTILINE))
    missing = asked_for() - exposed
    assert not missing
