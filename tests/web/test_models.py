"""What ``/models`` and the health endpoints tell."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import running, wait_until
from tests.standin import write_bundle


def test_models_lists_versions_state_and_metrics(client: httpx.Client) -> None:
    (model,) = client.get("/models").json()["models"]
    (version,) = model["versions"]
    assert (model["name"], model["default"]) == ("standin", True)
    assert (version["version"], version["state"], version["serving"]) == ("1", "READY", True)
    assert version["metrics"] == {"phantom.dice": 0.5}
    assert len(version["sha256"]) == 64


def test_contract_and_card_are_shown(client: httpx.Client, grey_png: bytes) -> None:
    contract = client.get("/models/standin/versions/1").json()
    assert contract["input"] == {"name": "image", "height": 256, "width": 256}
    answer = client.post("/segment", content=grey_png).json()
    assert answer["model"]["sha256"] == contract["sha256"]
    card = client.get("/models/standin/versions/1/card")
    assert card.headers["content-type"].startswith("text/markdown")
    assert card.text.startswith("# standin 1")


def test_metrics_count_requests_and_time_stages(client: httpx.Client, grey_png: bytes) -> None:
    client.post("/segment", content=grey_png)
    client.post("/segment", content=b"no picture")
    text = client.get("/metrics").text
    for line in (
        'lungseg_requests_total{code="ok",route="/segment",status="200"}',
        'lungseg_requests_total{code="unsupported_media_type",route="/segment",status="415"}',
        'lungseg_stage_seconds_count{stage="inference"}',
        "lungseg_queue_depth 0.0",
        "lungseg_ready 1.0",
        'lungseg_model_info{name="standin",serving="true"',
        "process_resident_memory_bytes",
    ):
        assert line in text, line


def warnings(caplog: pytest.LogCaptureFixture) -> str:
    """All warnings, with their fields."""
    found = [record for record in caplog.records if record.levelno == logging.WARNING]
    return "\n".join(f"{r.getMessage()} {getattr(r, 'fields', '')}" for r in found)


FOLDERS = {
    "none": ({}, "cannot be read (no such file or directory)"),
    "empty": ({}, "it holds no model"),
    "another name": ({"name": "other"}, "it holds other"),
    "a model": ({"at": "standin"}, "it holds no model; its versions are those of one model"),
    "a version": ({"at": "standin/1"}, "it holds no model; it is one version itself"),
    "no such version": ({"model_version": "7"}, "no version 7 of standin in"),
    "a refused one": ({"sha256": "0" * 64}, "model.onnx has another SHA-256"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_cannot_serve_is_warned_of_with_its_path(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, in the log; no answer tells a path."""
    changes, reason = FOLDERS[name]
    root = tmp_path / "models"
    if name != "none":
        root.mkdir()
    if changes:
        contract = {key: changes[key] for key in changes.keys() - {"at", "model_version"}}
        write_bundle(root, **contract)
    given = {key: changes[key] for key in changes.keys() & {"model_version"}}
    root /= changes.get("at", ".")
    with running(root, ready=False, reload_interval_s=0.01, **given) as service:
        wait_until(lambda: reason in warnings(caplog))
        for _ in range(3):  # some looks at the folder later
            answers = [service.client.get(path) for path in ("/readyz", "/models")]
            answers.append(service.client.post("/segment", content=b"no slice"))
    said = warnings(caplog)
    assert str(root) in said
    assert said.count(reason) == 1
    assert [answer.status_code for answer in answers] == [503, 200, 503]
    assert not [answer.text for answer in answers if str(tmp_path) in answer.text]


def test_a_folder_that_vanishes_is_warned_of_while_its_model_serves_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, grey_png: bytes
) -> None:
    """What serves is kept, and the operator hears that the next restart will fail."""
    write_bundle(tmp_path / "models")
    with running(tmp_path / "models", reload_interval_s=0.01) as service:
        (tmp_path / "models").rename(tmp_path / "elsewhere")
        wait_until(lambda: "cannot be read" in warnings(caplog))
        assert service.client.post("/segment", content=grey_png).status_code == 200


def test_a_refused_reload_and_a_roll_back_are_seen_everywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log as warnings with the path, in the metrics and under ``/models``."""
    write_bundle(tmp_path, version="1")
    write_bundle(tmp_path, version="2")
    load = "/v2/repository/models/standin/load"
    with running(tmp_path) as service:

        def model() -> dict[str, Any]:
            return service.client.get("/models").json()["models"][0]

        def counted(line: str) -> bool:
            return line in service.client.get("/metrics").text

        assert model()["pinned"] is None
        assert counted('lungseg_model_refused{name="standin",version="2"} 0.0')
        service.client.post(load, json={"parameters": {"version": "1"}})
        assert model()["pinned"] == "1"
        assert counted('lungseg_model_pinned{name="standin",version="1"} 1.0')
        assert "held at one version by request {'model': 'standin/1'" in warnings(caplog)

        (tmp_path / "standin" / "2" / "golden.npz").write_bytes(b"half copied")
        assert service.client.post(load, json={}).json()["version"] == "2"
        newest = model()["versions"][0]
        assert (newest["serving"], newest["state"]) == (True, "READY")
        assert newest["reason"].startswith("newer content of the folder was refused: golden.npz")
        assert counted('lungseg_model_refused{name="standin",version="2"} 1.0')
        assert counted('lungseg_model_load_failures_total{model="standin",version="2"} 1.0')
        assert not counted("lungseg_model_pinned{")
        assert f"{tmp_path}/standin/2" in warnings(caplog)

        service.client.post("/v2/repository/models/standin/unload")
        assert "model unloaded by request {'model': 'standin'" in warnings(caplog)


def test_a_renamed_folder_is_refused_with_both_names(tmp_path: Path) -> None:
    """And with what to change, as its number stands in its contract too."""
    write_bundle(tmp_path).rename(tmp_path / "standin" / "5")
    with running(tmp_path, ready=False) as service:
        reason = service.client.get("/models").json()["models"][0]["versions"][0]["reason"]
    assert "it says standin/1, and the folder is standin/5" in reason
    assert "changes name and version in contract.json" in reason
