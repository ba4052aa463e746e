"""The files of the page over HTTP: who is shown them, what browsers may do, the switch."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.serving import running
from training.synthetic.phantom import Phantom

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "is_page"),
    [
        (BROWSER, True),
        ("*/*", True),
        ("text/*", True),
        ("text/html;q=0.1, application/*;q=0.2", False),
        ("application/json", False),
        ("application/json, text/plain, */*", False),
        ("text/html;q=0.5, application/json", False),
    ],
)
def test_people_get_a_page_and_programs_json(
    client: httpx.Client, accept: str, is_page: bool
) -> None:
    """Each says what it wants, and a cache is told that this decides."""
    answer = client.get("/", headers={"Accept": accept})
    kind = "text/html; charset=utf-8" if is_page else "application/json"
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.headers["vary"] == "Accept"


def test_pages_load_nothing_but_what_this_server_has(client: httpx.Client) -> None:
    """Neither page has a script or a style within itself, and no other site may frame one."""
    for path in ("/", "/docs"):
        page = client.get(path)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-eval" not in policy
        assert page.headers["referrer-policy"] == "no-referrer"
        assert "<style" not in page.text
        assert "style=" not in page.text


def test_all_modules_of_the_first_view_are_asked_for_at_once(client: httpx.Client) -> None:
    """None waits until the one that imports it was read; scans have modules of their own."""
    wanted, found = ["app.js"], set[str]()
    while wanted:
        if (name := wanted.pop()) not in found:
            found.add(name)
            text = client.get(f"/page/{name}").text
            wanted += re.findall(r'^import .*from "\./(.+)";$', text, re.MULTILINE)
    named = re.findall(r'(?:href|src)="page/(\w+\.js)"', client.get("/").text)
    assert len(found) > 10
    assert sorted(named) == sorted(found)


def test_files_have_their_types_and_are_sent_once(client: httpx.Client) -> None:
    """A browser asks whether they have changed; folders and what lies beside them stay closed."""
    kinds = {
        "app.js": "text/javascript",
        "style.css": "text/css",
        "icon.svg": "image/svg+xml",
        "samples/chest.dcm": "application/dicom",
    }
    for name, kind in kinds.items():
        answer = client.get(f"/page/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["cache-control"] == "no-cache"
        again = client.get(f"/page/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["cache-control"] == "no-cache"
    for name in ("index.html", "docs.html/", "vendor/../index.html"):  # not without their policy
        assert client.get(f"/page/{name}").status_code == 404, name
    for name in ("", "nowhere.js", "samples", "%2e%2e/settings.py", "samples/%2e%2e/settings.py"):
        assert client.get(f"/page/{name}").status_code == 404, name


def test_the_page_can_be_switched_off(models: Path) -> None:
    """Browsers then get what programs get, and the page of the interface stays whole."""
    with running(models, page=False, ready=False) as service:
        client = service.client
        client.headers["Accept"] = BROWSER
        assert client.get("/").json()["name"] == "lungseg"
        for name in ("app.js", "index.html", "samples/chest.dcm"):
            assert client.get(f"/page/{name}").status_code == 404
        for path in ("/docs", "/page/style.css", "/page/docs.js", "/docs-files/swagger-ui.css"):
            assert client.get(path).status_code == 200


def test_a_zip_has_all_that_a_viewer_needs(
    client: httpx.Client, dicom: bytes, phantom: Phantom
) -> None:
    """Values, labels and figures of one slice agree with each other and with the other forms."""
    answer = client.post("/segment", content=dicom, headers={"Accept": "application/zip"})
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    arrays = {name: np.load(io.BytesIO(files[name])) for name in ("labels.npy", "slice.npy")}
    assert np.abs(arrays["slice.npy"] - phantom.hu).max() <= 0.5
    document = json.loads(files["statistics.json"])
    right, left = (document["statistics"]["lungs"][side] for side in ("right", "left"))
    labels = arrays["labels.npy"]
    assert [np.count_nonzero(labels == n) for n in (1, 2)] == [right["pixels"], left["pixels"]]
    assert document == json.loads(answer.headers["x-segmentation"])
    assert files["mask.png"] == client.post("/segment?format=png", content=dicom).content
    # A pixel's place in the patient, by the matrix of the answer.
    matrix = np.array(document["image"]["affine_lps"])
    steps = [np.linalg.norm(matrix[:3, axis]) for axis in (1, 2)]
    assert steps == pytest.approx(document["image"]["spacing_mm"])
