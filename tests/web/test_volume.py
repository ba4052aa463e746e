"""``POST /segment/volume``: one small chest in every way it is sent, asked for and refused."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pydicom
import pytest

from lungseg.formats.archive import write_archive
from lungseg.inference.session import Session
from lungseg.volume_forms import VOLUME_FORMS
from tests.serving import PATIENCE_S, Running, running, wait_until
from tests.volume.grids import affine_of, nifti, npy, nrrd
from tests.volume.series import Stack, instance, saved

SIZE = SLICES, ROWS, COLUMNS = 20, 96, 120
SPACING_MM = 8.0, 3.0, 2.5
AFFINE = affine_of(spacing_mm=SPACING_MM)
NDJSON = {"Accept": "application/x-ndjson"}
FIRST_BYTES = {
    "json": b'{"model"',
    "nifti": b"\x1f\x8b",
    "nrrd": b"NRRD0004",
    "stl": b"lungseg",
    "glb": b"glTF",
    "png": b"\x89PNG",
    "npz": b"PK\3\4",
    "zip": b"PK\3\4",
}
"""Of answers that are no DICOM."""


@cache
def chest() -> np.ndarray:
    """Tissue with two lungs that end within the volume, the right one larger, int16 HU."""
    z, y, x = np.mgrid[:SLICES, :ROWS, :COLUMNS]
    z, y, x = (z - 9.5) / 8, y - 47.5, x - 59.5
    right = z**2 + (y / 24) ** 2 + ((x + 24) / 18) ** 2 < 1
    left = z**2 + (y / 24) ** 2 + ((x - 25) / 16) ** 2 < 1
    noise = np.random.default_rng(5).normal(0, 12, SIZE)
    return (np.where(right | left, -850, 40) + noise).astype(np.int16)


def series_of(values: np.ndarray) -> tuple[bytes, ...]:
    """A DICOM series whose slices come in no order."""
    stack = Stack(
        hu=values,
        positions=AFFINE[:3, 3] + np.arange(SLICES)[:, None] * AFFINE[:3, 0],
        row=AFFINE[:3, 2] / SPACING_MM[2],
        column=AFFINE[:3, 1] / SPACING_MM[1],
    )
    spacing = list(SPACING_MM[1:])
    files = [saved(instance(stack, k, PixelSpacing=spacing)) for k in range(SLICES)]
    return tuple(files[(7 * k) % SLICES] for k in range(SLICES))


@cache
def series() -> tuple[bytes, ...]:
    return series_of(chest())


@cache
def zipped() -> bytes:
    return write_archive({f"study/{k}.dcm": file for k, file in enumerate(series())})


def parts(files: tuple[bytes, ...], name: str = "files") -> list[tuple[str, tuple[str, bytes]]]:
    return [(name, (f"{k}.dcm", file)) for k, file in enumerate(files)]


def figures(answer: dict[str, Any]) -> dict[str, Any]:
    """What follows from the volume alone, whatever it came as."""
    return {name: answer[name] for name in ("model", "statistics", "confidence")}


def test_a_series_is_answered_with_its_geometry_and_measures(client: httpx.Client) -> None:
    """Both lungs, on the patient's sides, with the ml of the ellipsoids that were drawn."""
    answer = client.post("/segment/volume", files=parts(series()))
    assert answer.status_code == 200
    body = answer.json()
    assert body["request_id"] == answer.headers["x-request-id"]
    volume = body["volume"]
    assert [volume[name] for name in ("slices", "height", "width")] == [*SIZE]
    assert volume["media_type"] == "application/dicom"
    assert volume["spacing_mm"] == list(SPACING_MM)
    assert np.allclose(volume["affine_lps"], AFFINE)
    assert [one["chosen"] for one in volume["series"]] == [True]
    drawn = np.abs(chest() + 850) < 80
    drawn_ml = {
        side: np.count_nonzero(drawn[..., half]) * np.prod(SPACING_MM) / 1000
        for side, half in (("right", slice(0, 60)), ("left", slice(60, None)))
    }
    lungs = body["statistics"]["lungs"]
    for side, expected in drawn_ml.items():
        assert lungs[side]["volume_ml"] == pytest.approx(expected, rel=0.15)
    assert lungs["right"]["volume_ml"] > lungs["left"]["volume_ml"]
    assert body["acquisition"] == {
        "kernel": "SOFT",
        "slice_thickness_mm": 6.5,
        "kvp": 120.0,
        "contrast": None,
        "manufacturer": "phantom works",
        "date": None,
    }
    assert all(spent_ms > 0 for spent_ms in body["timings_ms"].values())
    assert "Phantom" not in answer.text
    assert "1.2.3.4.1" not in answer.text


def test_however_it_is_sent_the_answer_is_the_same(client: httpx.Client) -> None:
    """Parts of either name, a zip as part or body, packed in transit; and as one file of a grid."""
    expected = figures(client.post("/segment/volume", files=parts(series())).json())
    packed = {"Content-Encoding": "gzip"}
    for sent in (
        {"files": parts(series(), "file")},
        {"files": [("files", (f".{k}", file)) for k, file in enumerate(series())]},
        {"files": {"file": ("study.zip", zipped())}},
        {"content": zipped()},
        {"content": zipped(), "headers": {"Content-Type": "text/plain"}},
        {"content": gzip.compress(zipped(), 1), "headers": packed},
    ):
        assert figures(client.post("/segment/volume", **sent).json()) == expected
    volume = nifti(chest(), AFFINE)
    for content in (volume, gzip.compress(volume, 1)):
        found = figures(client.post("/segment/volume", content=content).json())
        assert found["statistics"]["volume_ml"] == expected["statistics"]["volume_ml"]


def test_padding_is_air_whether_a_header_marks_it_or_not(client: httpx.Client) -> None:
    """A field of view that cuts a lung off: no mask may tell a series from its NIfTI."""
    cut = chest().copy()
    cut[..., :30] = -2000
    spacing, positions = (
        list(SPACING_MM[1:]),
        AFFINE[:3, 3] + np.outer(range(SLICES), AFFINE[:3, 0]),
    )
    signed = {
        "PixelRepresentation": 1,
        "RescaleIntercept": "0",
        "PixelPaddingValue": -2000,
        "PixelSpacing": spacing,
    }
    stack = Stack(hu=cut, positions=positions, row=np.eye(3)[0], column=np.eye(3)[1])
    marked = [
        saved(instance(stack, k, PixelData=cut[k].tobytes(), **signed)) for k in range(SLICES)
    ]
    asked = {"params": {"format": "nifti"}}
    series_mask, grid_mask = (
        np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(answer.content)).dataobj)
        for answer in (
            client.post("/segment/volume", files=parts(tuple(marked)), **asked),
            client.post("/segment/volume", content=nifti(cut, AFFINE), **asked),
        )
    )
    assert series_mask.any()
    assert np.array_equal(series_mask, grid_mask)


@pytest.mark.parametrize("form", VOLUME_FORMS)
def test_every_form_has_its_type_its_headers_and_its_bytes(form: str, client: httpx.Client) -> None:
    """Asked for by name, whatever is accepted; the summary is the answer as far as it fits."""
    asked = {"params": {"format": form}, "headers": {"Accept": "text/csv"}}
    first, second = (client.post("/segment/volume", content=zipped(), **asked) for _ in range(2))
    assert first.status_code == 200
    assert first.headers["content-type"] == VOLUME_FORMS[form].media_type
    timing = first.headers["server-timing"]
    assert [part.partition(";")[0] for part in timing.split(", ")] == [
        *("decode", "queue", "inference", "postprocess", "encode")
    ]
    if form == "json":
        assert "x-segmentation" not in first.headers
        return
    assert first.content == second.content
    summary = first.headers["x-segmentation"]
    assert len(summary) <= 4096
    whole = client.post("/segment/volume", content=zipped()).json()
    short = json.loads(summary)
    assert short["statistics"]["volume_ml"] == whole["statistics"]["volume_ml"]
    assert set(short) == set(whole) - {"request_id", "timings_ms"}
    if form.startswith("dicom"):
        assert first.content[128:132] == b"DICM"
    else:
        assert first.content.startswith(FIRST_BYTES[form])


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("application/dicom", "dicom-seg"),
        ("application/zip", "zip"),
        ("model/stl, application/json;q=0.5", "stl"),
        ("model/gltf-binary", "glb"),
        ("*/*", "json"),
    ],
)
def test_accept_chooses_a_form_where_nothing_else_does(
    accept: str, form: str, client: httpx.Client
) -> None:
    headers = {"Accept": accept}
    answer = client.post("/segment/volume", content=zipped(), headers=headers)
    assert answer.headers["content-type"] == VOLUME_FORMS[form].media_type
    fields = {"format": "nrrd"}
    sent = {"files": {"file": zipped()}, "data": fields, "headers": headers}
    by_field = client.post("/segment/volume", **sent)
    assert by_field.headers["content-type"] == VOLUME_FORMS["nrrd"].media_type


def test_the_zip_holds_what_one_looks_at(client: httpx.Client) -> None:
    """The volume lies on the grid of the mask, and only comes where it is asked for."""
    asked = {"format": "zip", "include": "volume"}
    names = [
        _unzipped(client.post("/segment/volume", params=params, content=zipped()).content)
        for params in (asked, {"format": "zip"})
    ]
    mask, volume = (
        nibabel.Nifti1Image.from_bytes(gzip.decompress(names[0][name]))
        for name in ("mask.nii.gz", "volume.nii.gz")
    )
    assert np.array_equal(mask.affine, volume.affine)
    assert np.array_equal(np.asarray(volume.dataobj).transpose(2, 1, 0), chest())
    assert set(np.unique(np.asarray(mask.dataobj))) == {0, 1, 2}
    assert set(names[0]) - set(names[1]) == {"volume.nii.gz"}
    assert {"statistics.json", "profile.csv", "mask.nii.gz", "lungs.glb"} <= set(names[1])
    header, *rows = names[1]["profile.csv"].decode().splitlines()
    assert header == "position_mm,right_area_mm2,left_area_mm2,mean_hu,laa_950"
    statistics = json.loads(names[1]["statistics.json"])["statistics"]
    assert [float(row.split(",")[0]) for row in rows] == statistics["profile"]["position_mm"]


def _unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_lines_of_progress_end_with_the_answer(client: httpx.Client) -> None:
    """Each stage counts up to its total; with a format the last line has the file, too."""
    alone = client.post("/segment/volume", params={"format": "nifti"}, content=zipped())
    asked = {"params": {"format": "nifti"}, "headers": NDJSON}
    streamed = client.post("/segment/volume", content=zipped(), **asked)
    assert streamed.headers["content-type"] == "application/x-ndjson"
    *told, answer = map(json.loads, streamed.text.splitlines())
    stages = {line["stage"]: [] for line in told}
    for line in told:
        assert set(line) == {"stage", "done", "total"}
        assert line["total"] == SLICES
        stages[line["stage"]].append(line["done"])
    assert list(stages) == ["read", "decode", "segment"]
    for done in stages.values():
        assert done == sorted(done)
        assert done[-1] == SLICES
    file = answer.pop("file")
    assert (file["format"], file["media_type"]) == ("nifti", "application/gzip")
    assert base64.b64decode(file["base64"]) == alone.content
    plain = client.post("/segment/volume", content=zipped())
    assert {**answer, "request_id": 0, "timings_ms": 0} == {
        **plain.json(),
        "request_id": 0,
        "timings_ms": 0,
    }
    silent = client.post("/segment/volume", content=zipped(), headers=NDJSON).text.splitlines()
    assert "file" not in json.loads(silent[-1])


def test_what_is_wrong_has_its_code_and_after_progress_its_line(client: httpx.Client) -> None:
    """Before the first line the status still says it; after that the last line does."""
    wrong = [
        (b"text", {}, 415, "unsupported_media_type"),
        (b"", {}, 400, "malformed_request"),
        (nifti(chest(), AFFINE), {"volume": "1"}, 422, "invalid_parameter"),
        (zipped(), {"series": "1.9"}, 422, "invalid_parameter"),
        (zipped(), {"series": ""}, 422, "invalid_parameter"),
        (zipped(), {"spacing_mm": "1,1"}, 422, "invalid_parameter"),
        (zipped(), {"model": "none"}, 404, "unknown_model"),
        (npy(np.arange(3000.0).reshape(10, 15, 20)), {}, 422, "invalid_parameter"),
        (nifti(chest(), AFFINE), {"format": "dicom-seg"}, 422, "invalid_parameter"),
        (npy(chest()), {"format": "stl"}, 422, "invalid_parameter"),
    ]
    for content, params, status, code in wrong:
        answer = client.post("/segment/volume", content=content, params=params)
        assert (answer.status_code, answer.json()["code"]) == (status, code), params
        streamed = client.post("/segment/volume", content=content, params=params, headers=NDJSON)
        if streamed.status_code == 200:
            *told, last = map(json.loads, streamed.text.splitlines())
            assert told
            last = last["error"]
        else:
            last = streamed.json()
        assert (last["status"], last["code"], last["detail"]) == (
            status,
            code,
            answer.json()["detail"],
        )
    refused = (
        'lungseg_requests_total{code="invalid_parameter",route="/segment/volume",status="200"}'
    )
    assert refused in client.get("/metrics").text


def test_an_array_is_in_hu_and_has_places_only_where_somebody_says_so(
    client: httpx.Client,
) -> None:
    """Without a spacing nothing is in ml, and that is no zero."""
    bare = client.post("/segment/volume", content=npy(chest())).json()
    assert bare["statistics"]["volume_ml"] is None
    told = {"spacing_mm": ",".join(map(str, SPACING_MM)), "unit": "hu"}
    known = client.post("/segment/volume", content=npy(chest()), params=told).json()
    assert known["statistics"]["volume_ml"] > 100
    by_nrrd = client.post(
        "/segment/volume", content=nrrd(chest(), "spacings: 2.5 3 8\n"), params={"unit": "grey"}
    ).json()
    assert by_nrrd["volume"]["intensity_unit"] == "grey level"
    assert by_nrrd["statistics"]["density"] is None


def test_the_segmentation_refers_to_every_slice(client: httpx.Client) -> None:
    asked = {"params": {"format": "dicom-seg"}}
    content = client.post("/segment/volume", content=zipped(), **asked).content
    seg = pydicom.dcmread(io.BytesIO(content))
    (referenced,) = seg.ReferencedSeriesSequence
    named = {one.ReferencedSOPInstanceUID for one in referenced.ReferencedInstanceSequence}
    assert named == {f"1.2.3.4.{k + 1}" for k in range(SLICES)}


@pytest.fixture(scope="module")
def tight(models: Path) -> Iterator[Running]:
    """One volume at a time, and little of everything."""
    limits = {"max_volume_slices": 24, "max_volume_bytes": 800_000, "volume_deadline_s": 20.0}
    with running(models, volumes=1, volume_threads=2, **limits) as started:
        yield started


def test_limits_are_those_of_volumes(tight: Running) -> None:
    """More files, slices or bytes than are accepted, announced, sent or unpacked."""
    long = np.zeros((25, 30, 30), np.int16)
    wide = np.zeros((20, 160, 160), np.int16)
    files = [("files", ("x", b"x"))] * 73
    for sent, status, codes in (
        ({"content": nifti(long, AFFINE)}, 413, {"volume_too_large"}),
        ({"content": gzip.compress(nifti(wide, AFFINE))}, 413, {"volume_too_large"}),
        ({"content": nifti(wide, AFFINE)}, 413, {"body_too_large"}),
        ({"content": write_archive({"x.nii": nifti(wide, AFFINE)})}, 413, {"body_too_large"}),
        ({"files": files}, 413, {"too_many_items"}),
        ({"content": zipped()}, 200, {None}),
    ):
        answer = tight.client.post("/segment/volume", **sent)
        assert answer.status_code == status
        assert answer.json().get("code") in codes
    assert tight.state.lifecycle.buffered_bytes == 0


class Gate:
    """Holds inferences until it is opened, as a slow network would."""

    def __init__(self) -> None:
        self.begun, self.opened, self.runs = threading.Event(), threading.Event(), 0

    def run(self, real: Any, session: Session, grey: np.ndarray, **how: bool) -> np.ndarray:
        self.runs += 1
        self.begun.set()
        assert self.opened.wait(PATIENCE_S)
        return real(session, grey, **how)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """All volumes wait in their first inference; slices, of one each, pass."""
    held, real = Gate(), Session.run

    def run(session: Session, grey: np.ndarray, **how: bool) -> np.ndarray:
        return (
            real(session, grey, **how) if len(grey) == 1 else held.run(real, session, grey, **how)
        )

    monkeypatch.setattr(Session, "run", run)
    yield held
    held.opened.set()


def leaving(service: Running, **headers: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
    connection.request("POST", "/segment/volume", zipped(), headers)
    return connection


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
def test_a_caller_who_leaves_ends_the_work(accept: str, tight: Running, gate: Gate) -> None:
    """No slab is begun any more, and the place is free."""
    connection = leaving(tight, Accept=accept)
    assert gate.begun.wait(PATIENCE_S)
    wait_until(lambda: gate.runs == 2)
    connection.close()
    workers = tight.state.volume_workers
    wait_until(lambda: "client_gone" in tight.client.get("/metrics").text)
    gate.opened.set()
    wait_until(lambda: workers.running == 0)
    assert gate.runs == 2  # of three slabs
    wait_until(lambda: tight.state.lifecycle.in_flight == 0)


def test_volumes_take_turns_while_slices_pass(tight: Running, gate: Gate, grey_png: bytes) -> None:
    """One is computed, one waits, one is refused unread; what was read is held no longer."""
    first = leaving(tight)
    assert gate.begun.wait(PATIENCE_S)
    assert tight.state.lifecycle.buffered_bytes == 0
    second = leaving(tight)
    wait_until(lambda: tight.state.volume_workers.waiting == 1)
    shown = tight.client.get("/metrics").text
    assert "lungseg_busy_volumes 1.0" in shown
    assert "lungseg_volume_queue_depth 1.0" in shown
    refused = tight.client.post("/segment/volume", content=zipped())
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert tight.client.post("/segment", content=grey_png).status_code == 200
    gate.opened.set()
    for connection in (first, second):
        with contextlib.closing(connection), connection.getresponse() as answer:
            assert answer.status == 200


def test_a_volume_has_a_deadline_of_its_own(models: Path, gate: Gate) -> None:
    """A streamed one says so in its last line."""
    with running(models, deadline_s=PATIENCE_S, volume_deadline_s=0.5) as hasty:
        late = hasty.client.post("/segment/volume", content=zipped())
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        gate.opened.set()
        wait_until(lambda: hasty.state.volume_workers.running == 0)
        gate.opened.clear()
        streamed = hasty.client.post("/segment/volume", content=zipped(), headers=NDJSON)
        last = json.loads(streamed.text.splitlines()[-1])
        assert last["error"]["code"] == "deadline_exceeded"
        gate.opened.set()


def test_a_bug_ends_a_stream_with_its_line_and_nothing_of_the_data(
    tight: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_session: Session, _grey: np.ndarray, **_how: bool) -> np.ndarray:
        raise ZeroDivisionError("Doe^John")

    monkeypatch.setattr(Session, "run", broken)
    streamed = tight.client.post("/segment/volume", content=zipped(), headers=NDJSON)
    last = json.loads(streamed.text.splitlines()[-1])
    assert (last["error"]["code"], last["error"]["status"]) == ("internal_error", 500)
    assert "Doe" not in streamed.text
