"""The document that clients generate code from, and what importing the service costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from lungseg.packaged import sample_slice
from lungseg.web.schemas import SliceQuery
from tests.serving import running
from tests.web.test_errors import CONTRACT

MODELS = Path(__file__).parents[2] / "models"
SNAPSHOT = Path(__file__).parents[1] / "golden" / "openapi.json"
OTHER_PROCESSOR = 1e-3
"""Relative: how far the last bits of another processor may move a figure."""
FEWEST_WORDS = 8
"""Fewer make no sentence that says what a parameter does."""


def test_the_document_is_the_snapshot(client: httpx.Client) -> None:
    """``make openapi`` writes the snapshot; a difference is a change of the contract."""
    document = client.get("/openapi.json").json()
    expected = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    document["info"]["version"] = expected["info"]["version"]
    assert document == expected


def assert_same(shown: Any, given: Any, place: str) -> None:
    """Members and values; figures as another processor rounds them."""
    if isinstance(shown, dict):
        assert shown.keys() == given.keys(), place
        for name in shown.keys() - {"request_id", "timings_ms"}:
            assert_same(shown[name], given[name], f"{place}.{name}")
    elif isinstance(shown, int | float):
        assert shown == pytest.approx(given, rel=OTHER_PROCESSOR), place
    else:
        assert shown == given, place


def test_the_example_of_an_answer_is_one() -> None:
    """Every member and figure is what the sample slice gets from the published model."""
    with running(MODELS, model="lung-unet") as service:
        document = service.client.get("/openapi.json").json()
        content = sample_slice().read_bytes()
        real = service.client.post("/segment?encoding=none", content=content).json()
    answered = document["paths"]["/segment"]["post"]["responses"]["200"]
    example = answered["content"]["application/json"]["examples"]["sample"]["value"]

    assert_same(example, real, "answer")
    assert example["timings_ms"].keys() == real["timings_ms"].keys()


def test_the_examples_of_problems_follow_the_table(client: httpx.Client) -> None:
    responses = client.get("/openapi.json").json()["paths"]["/segment"]["post"]["responses"]
    seen = set()
    for status, response in responses.items():
        if status == "200":
            continue
        for code, example in response["content"]["application/problem+json"]["examples"].items():
            assert example["value"]["status"] == int(status)
            assert CONTRACT[code] == (int(status), example["value"]["title"])
            seen.add(code)
    assert {"overloaded", "deadline_exceeded", "not_grey", "body_too_large"} <= seen


def test_every_parameters_description_is_a_sentence_that_stands_alone(client: httpx.Client) -> None:
    """Programs and help texts show each of them without its neighbours."""
    paths = client.get("/openapi.json").json()["paths"]
    described = {
        f"{path} {parameter['name']}": parameter.get("description", "")
        for path in ("/segment", "/segment/batch")
        for parameter in paths[path]["post"]["parameters"]
    }
    assert len(described) == 2 * len(SliceQuery.model_fields)
    for name, sentence in described.items():
        assert re.fullmatch(r"[A-Z].*\.", sentence), name
        assert len(sentence.split()) >= FEWEST_WORDS, name


def test_the_docs_page_needs_no_other_server(client: httpx.Client) -> None:
    """Page, script and style come from here: hospital networks reach no CDN."""
    page = client.get("/docs").text
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(files) >= 6
    for path in files:
        assert path.startswith(("docs-files/", "page/", "./"))
        assert client.get(f"/{path}").status_code == 200


@pytest.mark.parametrize("kept", [True, False])
def test_the_docs_page_works_under_a_path(models: Path, kept: bool) -> None:
    """Whether a gateway takes the prefix off or leaves it, page and files are found."""
    with running(models, root_path="/lungs") as service:

        def get(path: str) -> httpx.Response:
            return service.client.get(f"/lungs/{path}" if kept else f"/{path}")

        page = get("docs")
        for path in re.findall(r'(?:src|href)="([^"]+)"', page.text):
            assert get(path).status_code == 200
        assert get("openapi.json").json()["servers"] == [{"url": "/lungs"}]
        assert get("readyz").status_code == 200
        assert get("nowhere").status_code == 404


def test_importing_the_service_loads_nothing_of_training() -> None:
    """TensorFlow would cost seconds and gigabytes."""
    code = (
        "import sys, lungseg.server, lungseg.cli;"
        "heavy = {'tensorflow', 'keras', 'tf2onnx', 'onnx', 'training'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
