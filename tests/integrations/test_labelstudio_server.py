"""A real Label Studio, in a process of its own, asks for predictions and stores them."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.integrations.test_labelstudio import BOTH, TOKEN, config, mask_of, painted
from tests.serving import running, wait_until

pytestmark = pytest.mark.label_studio
START_S = 600.0
"""The first start makes a data base, which takes minutes where others compute."""
ENVIRONMENT = {
    "COLLECT_ANALYTICS": "False",
    "LATEST_VERSION_CHECK": "False",
    "ML_BLOCK_LOCAL_IP": "false",
    "SSRF_PROTECTION_ENABLED": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
}
"""It calls nobody, and may call backends on this machine."""


@pytest.fixture(scope="module")
def label_studio(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The server, by a client that has a user's token."""
    folder = tmp_path_factory.mktemp("label-studio")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    user = ["--username", "a@b.cd", "--password", "a-long-word", "--user-token", TOKEN]
    command = [tools.with_name("label-studio"), "start", "--no-browser", *user]
    command += ["--enable-legacy-api-token", "--port", str(port), "--internal-host", "127.0.0.1"]
    environment = {**os.environ, **ENVIRONMENT, "LABEL_STUDIO_BASE_DATA_DIR": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    client = httpx.Client(base_url=url, timeout=60, headers={"Authorization": f"Token {TOKEN}"})

    def is_up() -> bool:
        assert process.poll() is None, (folder / "log").read_text(errors="replace")[-2000:]
        try:
            return client.get("/health", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(is_up, START_S)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait()


def test_predictions_of_a_real_server(
    label_studio: httpx.Client, models: Path, grey_png: bytes
) -> None:
    """Connected with a key, asked for two images, whose strokes it then has."""
    url = str(label_studio.base_url)
    about = {"title": "lungs", "label_config": config(BOTH).replace("$text", "$ct")}
    project = label_studio.post("/api/projects", json=about).json()["id"]
    for name in ("a.png", "b.png"):
        files = {"file": (name, grey_png, "image/png")}
        label_studio.post(f"/api/projects/{project}/import", files=files).raise_for_status()
    settings = {"labelstudio_url": url, "labelstudio_token": TOKEN, "api_keys": ("secret",)}
    with running(models, integrations=("labelstudio",), **settings) as service:
        backend = {"url": f"{service.url}/labelstudio", "project": project, "title": "lungseg"}
        refused = label_studio.post("/api/ml", json=backend)
        assert refused.status_code == 400
        key = {"basic_auth_user": "anybody", "basic_auth_pass": "secret"}
        made = label_studio.post("/api/ml", json={**backend, **key, "auth_method": "BASIC_AUTH"})
        assert made.status_code == 201, made.text
        wanted = {"selectedItems": {"all": True, "excluded": []}}
        action = {"id": "retrieve_tasks_predictions", "project": str(project)}
        label_studio.post("/api/dm/actions", params=action, json=wanted).raise_for_status()
        service.client.headers["X-API-Key"] = "secret"
        mask = mask_of(service.client, grey_png)
    found = label_studio.get("/api/predictions", params={"project": project}).json()
    assert len({one["task"] for one in found}) == 2
    for one in found:
        assert one["model_version"] == "standin/1"
        strokes = {stroke["value"]["brushlabels"][0]: stroke for stroke in one["result"]}
        assert list(strokes) == ["Right lung", "Left lung"]
        right, left = map(painted, strokes.values())
        assert np.array_equal(right | left, mask)
