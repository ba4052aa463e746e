"""What ``/models`` and the health endpoints tell."""

from __future__ import annotations

import httpx


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
