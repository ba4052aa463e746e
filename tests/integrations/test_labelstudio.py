"""Label Studio's requests, as version 1.23.2 sends them, and what becomes of its images."""

from __future__ import annotations

import base64
import contextlib
import http.server
import io
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from lungseg.integrations import labelstudio
from tests.conftest import encode
from tests.serving import Running, running, wait_until
from training.synthetic.phantom import Phantom, picture

POLL_S = 0.01
TOKEN = "0123456789012345678901234567890123456789"
BOTH = '<Label value="Right lung"/><Label value="Left lung"/>'
SENT = {"project": "1.1795708314"}
SETUP = {
    **SENT,
    "hostname": "http://evil.example",
    "access_token": "another",
    "extra_params": None,
}
PREDICT = {**SENT, "params": {"login": None, "password": None, "context": None}}
TASK = {
    "meta": {},
    "is_labeled": False,
    "overlap": 1,
    "comment_authors": [],
    "annotations": [],
    "predictions": [],
}


def config(labels: str = BOTH, brush: str = "BrushLabels") -> str:
    """A project's own, with names that are nobody else's."""
    return (
        '<View><Text name="t" value="$text"/><Image name="slice" value="$ct"/>'
        f'<{brush} name="paint" toName="slice">{labels}</{brush}></View>'
    )


class Tool(http.server.ThreadingHTTPServer):
    """What Label Studio has for a backend: images behind a token."""

    def __init__(self, images: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.images, self.heard, self.open = images, list[str](), threading.Event()
        self.open.set()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(POLL_S,), daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Tool

    def do_GET(self) -> None:
        self.server.heard.append(self.path)
        if self.path != "/drops":
            self.server.open.wait()
        known = self.headers["Authorization"] == f"Token {TOKEN}"
        if self.path == "/drops":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                while not self.server.open.wait(POLL_S):
                    self.wfile.write(b"x")
            return
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/data/upload/1/doe.png")
            self.end_headers()
            return
        content = self.server.images.get(self.path, b"") if known else b""
        self.send_response(200 if content else 401)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def other(phantom: Phantom) -> np.ndarray:
    """Another slice: the first one, its sides exchanged."""
    return picture(phantom)[:, ::-1]


@pytest.fixture(scope="module")
def tool(grey_png: bytes, other: np.ndarray) -> Iterator[Tool]:
    images = {"/data/upload/1/doe.png": grey_png, "/data/upload/1/huge.png": bytes(300_000)}
    images["/data/upload/1/text.png"] = b"no picture"
    with Tool({**images, "/data/upload/1/other.png": encode(other, "PNG")}) as started:
        yield started
        started.shutdown()


@pytest.fixture(scope="module")
def backend(models: Any, tool: Tool) -> Iterator[Running]:
    settings = {"labelstudio_url": tool.url, "labelstudio_token": TOKEN}
    with running(
        models, integrations=("labelstudio",), max_body_bytes=200_000, **settings
    ) as started:
        yield started


def predict(client: httpx.Client, *addresses: object, labels: str = BOTH) -> list[dict[str, Any]]:
    """As Label Studio asks: one answer for each task."""
    tasks = [{**TASK, "id": k, "data": {"ct": one}} for k, one in enumerate(addresses)]
    asked = {**PREDICT, "label_config": config(labels), "tasks": tasks}
    response = client.post("/labelstudio/predict", json=asked)
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    assert len(results) == len(addresses)
    return results


def mask_of(client: httpx.Client, content: bytes) -> np.ndarray:
    answer = client.post("/segment?format=png", content=content)
    return np.array(Image.open(io.BytesIO(answer.content))) > 0


def painted(stroke: dict[str, Any]) -> np.ndarray:
    """A stroke as Label Studio's own converter reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own, at import
        from label_studio_converter.brush import decode_rle
    shape = stroke["original_height"], stroke["original_width"], 4
    return decode_rle(stroke["value"]["rle"]).reshape(shape)[..., 3] > 0


def test_each_task_gets_its_strokes_in_order(
    backend: Running, tool: Tool, grey_png: bytes, other: np.ndarray
) -> None:
    """By address, or by whole address; with the project's labels, or one for all."""
    client, second = backend.client, encode(other, "PNG")
    uploads = "/data/upload/1/other.png", f"{tool.url}/data/upload/1/doe.png"
    for found, content in zip(predict(client, *uploads), (second, grey_png), strict=True):
        assert found["model_version"] == "standin/1"
        assert 0.5 < found["score"] <= 1
        strokes = {one["value"]["brushlabels"][0]: one for one in found["result"]}
        assert list(strokes) == ["Right lung", "Left lung"]
        right, left = map(painted, strokes.values())
        assert np.array_equal(right | left, mask_of(client, content))
        assert not (right & left).any()
        assert np.argwhere(right)[:, 1].mean() < np.argwhere(left)[:, 1].mean()
        for stroke in strokes.values():
            assert (stroke["from_name"], stroke["to_name"]) == ("paint", "slice")
            assert (stroke["type"], stroke["image_rotation"]) == ("brushlabels", 0)
    within = f"data:image/png;base64,{base64.b64encode(second).decode()}"
    both = [found["result"] for found in predict(client, within, uploads[0])]
    strokes_of = [[stroke["value"] for stroke in result] for result in both]
    assert strokes_of[0] == strokes_of[1] != []
    (whole,) = predict(client, uploads[0], labels='<Label value="Heart"/><Label value="LUNGS"/>')
    assert [one["value"]["brushlabels"] for one in whole["result"]] == [["LUNGS"]]
    assert np.array_equal(painted(whole["result"][0]), mask_of(client, second))


def test_images_elsewhere_are_not_fetched(backend: Running, tool: Tool) -> None:
    """Nobody hears of them, redirects are not followed, what is too large is left."""
    before = len(tool.heard)
    with Tool({}) as stranger:
        host = tool.url.removeprefix("http://")
        strange = stranger.url.removeprefix("http://")
        elsewhere = [
            f"{stranger.url}/data/upload/1/doe.png",
            f"//{strange}/doe.png",
            f"http://{host}@{strange}/doe.png",
            f"http://user:secret@{host}/data/upload/1/doe.png",
            f"https://{host}/data/upload/1/doe.png",
            f"http://localhost:{tool.server_port}/data/upload/1/doe.png",
            "file:///etc/passwd",
            "data:image/png;base64,A",
            None,
            "http://[",
            "http://xn--a/doe.png",
        ]
        for found in predict(backend.client, *elsewhere):
            assert found["error"]["code"] == "invalid_parameter"
            assert "result" not in found
            assert "doe" not in str(found)
        stranger.shutdown()
        assert not stranger.heard
    assert not tool.heard[before:]
    left = ["/elsewhere", "/data/upload/1/none.png", "/data/upload/1/huge.png"]
    codes = [found["error"]["code"] for found in predict(backend.client, *left)]
    assert codes == [*["invalid_parameter"] * 2, "body_too_large"]
    assert sorted(tool.heard[before:]) == sorted(left)
    wait_until(lambda: backend.state.lifecycle.buffered_bytes == 0)


def test_one_bad_task_spoils_no_other(backend: Running) -> None:
    """Its place says why, and has no prediction that could be taken for one of no lung."""
    good, bad = "/data/upload/1/doe.png", "/data/upload/1/text.png"
    codes = [one.get("error", {}).get("code") for one in predict(backend.client, good, bad, good)]
    assert codes == [None, "unsupported_media_type", None]


def test_a_request_ends_with_what_is_done_in_its_time(
    backend: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Label Studio asks again for tasks without a prediction, and for none after an error."""
    monkeypatch.setattr(labelstudio, "SPARE", 1.0)
    (found,) = predict(backend.client, "/data/upload/1/doe.png")
    assert found["error"]["code"] == "deadline_exceeded"


def test_nothing_is_fetched_when_nobody_waits_any_more(models: Any, tool: Tool) -> None:
    """A request that was answered with 504 lets go of its thread after the image in hand."""
    before = len(tool.heard)
    settings = {"labelstudio_url": tool.url, "labelstudio_token": TOKEN, "deadline_s": 0.3}
    tool.open.clear()
    with running(models, integrations=("labelstudio",), **settings) as service:
        asked = {
            "label_config": config(),
            "tasks": [{"data": {"ct": "/data/upload/1/doe.png"}}] * 9,
        }
        assert service.client.post("/labelstudio/predict", json=asked).status_code == 504
        tool.open.set()
        wait_until(lambda: service.state.lifecycle.buffered_bytes == 0)
    assert len(tool.heard) <= before + 1


def test_an_image_that_comes_in_drops_keeps_no_thread(models: Any, tool: Tool) -> None:
    """Silence has its own limit, but who sends a little now and then is never silent."""
    settings = {"labelstudio_url": tool.url, "labelstudio_token": TOKEN, "deadline_s": 0.3}
    tool.open.clear()
    try:
        with running(models, integrations=("labelstudio",), **settings) as service:
            asked = {"label_config": config(), "tasks": [{"data": {"ct": "/drops"}}]}
            assert service.client.post("/labelstudio/predict", json=asked).status_code == 504
            wait_until(lambda: service.state.lifecycle.buffered_bytes == 0)
    finally:
        tool.open.set()


@pytest.mark.parametrize(
    ("labels", "brush", "status"),
    [
        (BOTH, "BrushLabels", 200),
        ('<Label value="lung_right"/><Label value="LEFT"/>', "BrushLabels", 200),
        ('<Label value="Lung nodule"/><Label value="lungs"/>', "BrushLabels", 200),
        ('<Label value="Lung nodule"/><Label value="Right"/>', "BrushLabels", 422),
        ('<Label value="ПРАВОЕ lung"/>', "BrushLabels", 422),
        (BOTH, "PolygonLabels", 422),
        ("<Label", "BrushLabels", 400),
    ],
)
def test_setup_says_whether_the_labels_can_be_drawn(
    backend: Running, labels: str, brush: str, status: int
) -> None:
    """The model's version, or why not: Label Studio shows it where a backend is connected."""
    response = backend.client.post(
        "/labelstudio/setup", json={**SETUP, "schema": config(labels, brush)}
    )
    assert response.status_code == status
    assert response.json().get("model_version") == ("standin/1" if status == 200 else None)


def test_setup_waits_for_no_other_work(models: Any) -> None:
    """Label Studio gives it three seconds before each batch, or takes the backend for broken."""
    only = {"integrations": ("labelstudio",), "queue_size": 0}
    with running(models, **only) as service, service.busy(2):
        asked = {"schema": config(), "tasks": []}
        for name, status in (("predict", 503), ("setup", 200)):
            assert service.client.post(f"/labelstudio/{name}", json=asked).status_code == status


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"schema": f"{'<BrushLabels>' * 4000}{'<Label/>' * 18000}{'</BrushLabels>' * 4000}"}, 422),
        ({"schema": config(), "tasks": [TASK] * 20_000}, 413),
    ],
)
def test_setup_keeps_no_other_request_waiting(
    models: Any, asked: dict[str, Any], status: int
) -> None:
    """Labels are not read again for each brush around them, and many tasks not at all."""
    with running(models, integrations=("labelstudio",)) as service:
        response = service.client.post("/labelstudio/setup", json={**SETUP, **asked})
    assert response.status_code == status


@pytest.mark.parametrize(("tasks", "status"), [(10_001, 400), (20_000, 413)])
def test_a_request_has_so_many_tasks_and_bytes(backend: Running, tasks: int, status: int) -> None:
    """What is read of a task takes far more memory than its text."""
    asked = {"label_config": config(), "tasks": [{"data": {}}] * tasks}
    assert backend.client.post("/labelstudio/predict", json=asked).status_code == status


def test_what_else_label_studio_asks(backend: Running) -> None:
    """Whether it is there; of what people did it hears in vain; a document type is never read."""
    client = backend.client
    assert client.post("/labelstudio/webhook", json={"action": "TASKS_CREATED"}).is_success
    assert client.get("/labelstudio/health").json()["status"] == "UP"
    bomb = f'<!DOCTYPE x [<!ENTITY a "aaaa">]>{config("&a;")}'
    assert client.post("/labelstudio/setup", json={"schema": bomb}).status_code == 400
    for odd in ({}, {"schema": 7}, {"schema": config(), "tasks": [{}]}):
        assert client.post("/labelstudio/setup", json=odd).status_code == 400


def test_keys(models: Any, tool: Tool) -> None:
    """An API key comes as the password of basic authentication."""
    settings = {"labelstudio_url": f"{tool.url}/", "labelstudio_token": TOKEN}
    with running(
        models, integrations=("labelstudio",), api_keys=("schlüssel",), **settings
    ) as service:
        client = service.client
        for password, status in (("wrong", 401), ("schlüssel", 200)):
            client.auth = httpx.BasicAuth("anybody", password)
            assert client.get("/labelstudio/health").status_code == status
        (found,) = predict(client, "/data/upload/1/doe.png")
        assert len(found["result"]) == 2
        client.auth = None
        assert client.get("/labelstudio/health").status_code == 401


def test_without_an_address_nothing_is_fetched(models: Any, tool: Tool) -> None:
    """Not even from an address that is whole."""
    before = len(tool.heard)
    with running(models, integrations=("labelstudio",)) as service:
        for found in predict(service.client, "/data/1.png", f"{tool.url}/data/1.png"):
            assert found["error"]["code"] == "invalid_parameter"
    assert len(tool.heard) == before
