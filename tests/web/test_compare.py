"""``POST /compare``: two answers as the service gave them, and what is no answer."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from lungseg.web.schemas import Comparison
from tests.web.test_volume import chest, parts, series_of


@pytest.fixture(scope="module")
def answers(service: Any) -> list[dict[str, Any]]:
    """Of one chest, and of the same one whose lung lost density."""
    denser = chest().copy()
    denser[denser < -700] -= 40
    return [
        service.client.post("/segment/volume", files=parts(series_of(values))).json()
        for values in (chest(), denser)
    ]


def test_what_changed_is_what_was_changed(
    client: httpx.Client, answers: list[dict[str, Any]]
) -> None:
    """Of the document's shape, beyond what rescans differ by, and never called a progression."""
    sent = {"before": answers[0], "after": answers[1]}
    answer = client.post("/compare", json=sent)
    assert answer.status_code == 200
    body = answer.json()
    assert body["request_id"] == answer.headers["x-request-id"]
    TypeAdapter(Comparison).validate_python(body, strict=True, extra="forbid")
    both = body["differences"]["both"]
    assert both["mean_hu"]["change"] == pytest.approx(-40, abs=1)
    assert both["mean_hu"]["verdict"] == "beyond"
    assert both["volume_ml"]["change"] == pytest.approx(0, abs=5)
    assert both["volume_ml"]["verdict"] == "within"
    assert body["warnings"] == []
    assert "progress" not in answer.text
    packed = gzip.compress(json.dumps(sent).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    again = client.post("/compare", content=packed, headers=headers).json()
    assert {**again, "request_id": ""} == {**body, "request_id": ""}


def test_what_is_no_pair_of_answers_is_refused(
    client: httpx.Client, answers: list[dict[str, Any]]
) -> None:
    """By a sentence that names the place and repeats nothing that was sent."""
    good = json.dumps(answers[0])
    for content, status, code in (
        (b"", 400, "malformed_request"),
        (b"\xff", 400, "malformed_request"),
        (b"[" * 100_000, 400, "malformed_request"),
        (b"[]", 400, "malformed_request"),
        (f'{{"before": {good}}}'.encode(), 400, "malformed_request"),
        (f'{{"before": {good}, "after": {good}, "Doe": 1}}'.encode(), 400, "malformed_request"),
        (f'{{"before": {good}, "after": NaN}}'.encode(), 400, "malformed_request"),
        (f'{{"before": {good}, "after": {{"Doe": 1}}}}'.encode(), 422, "invalid_parameter"),
        (f'{{"before": {good}, "after": 1e999}}'.encode(), 422, "invalid_parameter"),
        (b" " * (1 + (16 << 20)), 413, "body_too_large"),
    ):
        answer = client.post("/compare", content=content)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert "Doe" not in answer.text


@pytest.mark.parametrize("tiny", [5e-324, 1e-300, 1e-5])
def test_figures_that_no_lung_has_break_nothing(
    tiny: float, client: httpx.Client, answers: list[dict[str, Any]]
) -> None:
    """A volume of next to nothing before would make a change of more percent than there are."""
    before = json.loads(json.dumps(answers[0]))
    before["statistics"]["volume_ml"] = tiny
    after = json.loads(json.dumps(answers[1]))
    after["statistics"]["volume_ml"] = 1e9
    answer = client.post("/compare", json={"before": before, "after": after})
    assert answer.status_code in (200, 422)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("acquisition", "kvp"), 10**400),
        (("acquisition", "slice_thickness_mm"), "thick"),
        (("acquisition", "kernel"), [[[]]]),
        (("model", "version"), {"3": 3}),
        (("quality", "flags"), [{"code": ["incomplete_apex"]}]),
    ],
)
def test_members_of_other_kinds_are_refused_and_named(
    place: tuple[str, str], value: Any, client: httpx.Client, answers: list[dict[str, Any]]
) -> None:
    """Of all that is compared, be it only to warn."""
    odd = json.loads(json.dumps(answers[0]))
    odd[place[0]][place[1]] = value
    for sent in ({"before": odd, "after": answers[1]}, {"before": answers[1], "after": odd}):
        answer = client.post("/compare", json=sent)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
        assert place[0] in answer.json()["detail"]
