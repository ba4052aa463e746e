"""The dashboard and the alerts ask for series that the service has, and flags are counted."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from lungseg.core.quality import CODES
from tests.conftest import encode
from tests.serving import Running, running, wait_until
from tests.standin import write_bundle

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
        # Of a batch its stages together, as of any other request.
        assert samples(service)['lungseg_stage_seconds_count{stage="inference"}'] == 2
    assert (flags["empty_mask"], flags["not_calibrated_hu"], flags["non_axial"]) == (2, 3, 0)
    assert flags.keys() == set(CODES)


STAGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100, math.inf)
"""Bounds of histograms of time, in seconds: a service that changes them breaks recorded series."""


def samples(service: Running) -> dict[str, float]:
    """Every sample that is exposed, by its name with its labels."""
    lines = service.client.get("/metrics").text.splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def test_histograms_have_seconds_and_slices_in_buckets_that_stay(
    models: Path, grey_png: bytes
) -> None:
    """What one request for one slice, and one for two tensors, took and held."""
    tensor = {"name": "image", "shape": [2, 256, 256, 1], "datatype": "FP32"}
    tensor["data"] = [0.0] * (2 * 256 * 256)
    for batching in ("off", "waiting"):
        with running(models, batching=batching, workers=1) as service:
            alone = service.client.post("/segment", content=grey_png).json()
            first = samples(service)
            service.client.post("/v2/models/standin/infer", json={"inputs": [tensor]})
            found = samples(service)
        assert (found["lungseg_batch_size_count"], found["lungseg_batch_size_sum"]) == (2, 3)
        for stage in ("queue", "inference", "encode"):
            spent_s = alone["timings_ms"][stage] / 1000
            stage_s = first[f'lungseg_stage_seconds_sum{{stage="{stage}"}}']
            assert stage_s == pytest.approx(spent_s, rel=0.01, abs=2e-6), stage
        whole_s = first['lungseg_request_seconds_sum{route="/segment"}']
        assert whole_s >= first['lungseg_stage_seconds_sum{stage="inference"}']
        assert first['lungseg_request_seconds_count{route="/segment"}'] == 1
    for name, bounds in (
        ('lungseg_stage_seconds_bucket{le="(.+?)",stage="decode"}', STAGES),
        ('lungseg_request_seconds_bucket{le="(.+?)",route="/segment"}', STAGES),
        ('lungseg_batch_size_bucket{le="(.+?)"}', (1, 2, 4, 8, 16, 32, 64, math.inf)),
    ):
        matches = (re.fullmatch(name, sample) for sample in found)
        assert tuple(float(match[1]) for match in matches if match) == bounds


def test_probes_are_neither_logged_nor_in_flight(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Machines ask every few seconds; a trace that is none is not in the line of others."""
    caplog.set_level(logging.INFO)
    wrong = {"traceparent": f"x00-{'1' * 32}-{'2' * 16}-01", "X-Request-ID": "mine"}
    with running(models) as service:
        for path in ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert service.client.get(path).status_code == 200
        assert samples(service)["lungseg_in_flight"] == 0
        path = "/models/standin/versions/1"
        assert service.client.head(path, headers=wrong).status_code == 200
        wait_until(lambda: [record for record in caplog.records if record.name == "lungseg.access"])
    (line,) = [record.fields for record in caplog.records if record.name == "lungseg.access"]
    duration_ms = line.pop("duration_ms")
    assert line == {
        "request_id": "mine",
        "method": "HEAD",
        "route": "/models/{model}/versions/{version}",
        "status": 200,
        "code": "ok",
        "bytes_in": 0,
        "bytes_out": 0,
    }
    assert duration_ms > 0


def test_models_are_told_apart_by_what_serves(tmp_path: Path) -> None:
    """One sample for each loaded version, none for one that is not, and whether it was refused."""
    for version in ("1", "2", "3", "4"):
        write_bundle(tmp_path, version=version)
    (tmp_path / "standin" / "2" / "model.onnx").write_bytes(b"damaged")
    with running(tmp_path, loaded_versions=3) as service:
        found = samples(service)
    digest = hashlib.sha256((tmp_path / "standin" / "1" / "model.onnx").read_bytes()).hexdigest()
    names = "name,serving,sha256,version"
    assert {name: value for name, value in found.items() if "model_info" in name} == {
        _sample("lungseg_model_info", names, "standin", "false", digest, "1"): 1,
        _sample("lungseg_model_info", names, "standin", "false", digest, "3"): 1,
        _sample("lungseg_model_info", names, "standin", "true", digest, "4"): 1,
    }
    assert {name: value for name, value in found.items() if "model_refused" in name} == {
        _sample("lungseg_model_refused", "name,version", "standin", number): number == "2"
        for number in ("1", "2", "3", "4")
    }
    assert not [name for name in found if "model_pinned" in name]


def _sample(metric: str, names: str, *values: str) -> str:
    labels = sorted(zip(names.split(","), values, strict=True))
    return f"{metric}{{{','.join(f'{name}={value!r}' for name, value in labels)}}}".replace(
        "'", '"'
    )
