"""The dashboard and the alerts ask for series that the service has, and flags are counted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import numpy as np
import yaml

from lungseg.core.quality import CODES
from tests.conftest import encode
from tests.serving import running

DOCKER = Path(__file__).parents[2] / "docker"
SELECTOR = re.compile(r"\b(?P<name>(?:lungseg|process)_[a-z_]+)(?:\{(?P<matchers>[^}]*)\})?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
SAMPLE = re.compile(r"^(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? ", re.MULTILINE)


def panels() -> dict[str, list[str]]:
    """The dashboard's queries, by the titles of their panels."""
    dashboard = json.loads((DOCKER / "grafana/dashboards/lungseg.json").read_text())
    return {
        panel["title"]: [target["expr"] for target in panel["targets"]]
        for panel in dashboard["panels"]
    }


def alerts() -> dict[str, str]:
    """The alerts' expressions by their names."""
    rules = yaml.safe_load((DOCKER / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
    return {rule["alert"]: rule["expr"] for rule in rules}


def expressions() -> list[str]:
    return [query for queries in panels().values() for query in queries] + [*alerts().values()]


def selects(matchers: str, labels: dict[str, str]) -> bool:
    """Whether labels are those of a selector, as Prometheus compares them."""
    for name, operator, wanted in MATCHER.findall(matchers):
        value = labels.get(name, "")
        same = bool(re.fullmatch(wanted, value)) if "~" in operator else value == wanted
        if same == operator.startswith("!"):
            return False
    return True


def test_every_series_that_is_asked_for_is_there(client: httpx.Client, grey_png: bytes) -> None:
    """With all its labels, after one mask: also those of events that have not come yet."""
    client.post("/segment", content=grey_png)
    text = client.get("/metrics").text
    series = [
        (found["name"], dict(re.findall(r'(\w+)="([^"]*)"', found["labels"] or "")))
        for found in SAMPLE.finditer(text)
    ]
    asked = {found.group(): found for query in expressions() for found in SELECTOR.finditer(query)}
    assert len(asked) >= 20
    missing = [
        selector
        for selector, found in asked.items()
        if not any(
            name == found["name"] and selects(found["matchers"] or "", labels)
            for name, labels in series
        )
    ]
    assert not missing


def test_masks_and_their_flags_are_counted(models: Path, grey_png: bytes) -> None:
    """One by one, those of a batch too, and what is refused is no mask; codes are a fixed set."""
    white = encode(np.where(np.arange(64 * 64).reshape(64, 64) == 999, 0, 255).astype("u1"), "PNG")

    def counted(name: str) -> dict[str, float]:
        lines = service.client.get("/metrics").text.splitlines()
        found = (re.fullmatch(rf'lungseg_{name}(?:{{code="(\w+)"}})? (\S+)', x) for x in lines)
        return {match[1] or "": float(match[2]) for match in found if match}

    with running(models) as service:
        assert counted("flags_total") == dict.fromkeys(CODES, 0)
        service.client.post("/segment?format=png", content=white)
        files = [
            ("files", ("a.png", white)),
            ("files", ("b.png", grey_png)),
            ("files", ("c", b"no")),
        ]
        assert service.client.post("/segment/batch", files=files).status_code == 200
        service.client.post("/segment", content=b"no picture")
        flags = counted("flags_total")
        assert counted("masks_total") == {"": 3}
    assert (flags["empty_mask"], flags["not_calibrated_hu"], flags["non_axial"]) == (2, 3, 0)
    assert flags.keys() == set(CODES)
