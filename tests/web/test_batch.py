"""Many slices in one request: order, failures of their own, archives and their tricks."""

from __future__ import annotations

import csv
import io
import json
import struct
import zipfile
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from tests.conftest import encode
from tests.serving import running
from tests.standin import make_graph, write_bundle

Files = list[tuple[str, tuple[str, bytes]]]


def form(*files: tuple[str, bytes]) -> Files:
    return [("files", file) for file in files]


def packed(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def mixed(dicom: bytes, grey_png: bytes) -> list[tuple[str, bytes]]:
    return [("z.dcm", dicom), ("bad.png", b"text"), ("a.png", grey_png), ("z.dcm", dicom)]


def test_answers_keep_the_order_and_one_bad_file_fails_alone(
    client: httpx.Client, mixed: list[tuple[str, bytes]]
) -> None:
    answer = client.post("/segment/batch", files=form(*mixed))
    assert answer.status_code == 200
    items = answer.json()["items"]
    assert [item["filename"] for item in items] == [name for name, _ in mixed]
    assert items[1]["error"]["code"] == "unsupported_media_type"
    assert items[1]["error"]["status"] == 415
    for item, (_, content) in zip(items, mixed, strict=True):
        if "error" not in item:
            alone = client.post("/segment", content=content).json()
            for member in ("mask", "statistics", "confidence", "quality", "image", "model"):
                assert item[member] == alone[member]
            assert all(spent_ms > 0 for spent_ms in item["timings_ms"].values())


def fails_on_black() -> bytes:
    """The stand-in, which looks for a value that isn't there where no pixel is above 0."""
    model = onnx.load_from_string(make_graph())
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["highest"], keepdims=0),
        helper.make_node("Equal", ["highest", "zero"], ["black"]),
        helper.make_node("Cast", ["black"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["only", "index"], ["nothing"]),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    last = next(node for node in model.graph.node if node.op_type == "Sub")
    last.input[0] = "nothing"
    cut = next(tensor for tensor in model.graph.initializer if tensor.name == "cut")
    only = onnx.numpy_helper.to_array(cut)[None]
    model.graph.initializer.append(onnx.numpy_helper.from_array(only, "only"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0) * only[0], "zero"))
    return model.SerializeToString()


@pytest.mark.parametrize("media_type", ["application/json", "application/x-ndjson"])
def test_a_bug_is_one_items_own_too(
    tmp_path: Path, dicom: bytes, media_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its answer and the log's line say under which id to look, and not what the exception said."""
    write_bundle(tmp_path, graph=fails_on_black())
    black = encode(np.zeros((20, 30), np.uint8), "PNG")
    with running(tmp_path) as service:
        alone = service.client.post("/segment", content=black)
        assert (alone.status_code, alone.json()["code"]) == (500, "internal_error")
        files = form(("a.dcm", dicom), ("black.png", black), ("b.dcm", dicom))
        answer = service.client.post("/segment/batch", files=files, headers={"Accept": media_type})
    assert answer.status_code == 200
    assert answer.text.count('"statistics"') == 2
    assert answer.text.count('"internal_error"') == 1
    assert answer.text.count('"see the log under the request id"') == 1
    bugs = [record.fields["request_id"] for record in caplog.records if record.message == "bug"]
    assert bugs == [alone.headers["x-request-id"], answer.headers["x-request-id"]]


def test_a_zip_as_body_or_as_only_part_gives_the_same(
    client: httpx.Client, dicom: bytes, grey_png: bytes
) -> None:
    archive = packed(
        ("one/b.dcm", dicom), ("one/", b""), ("a.png", grey_png), ("__MACOSX/._a.png", b"x")
    )
    as_body = client.post("/segment/batch", content=archive).json()["items"]
    as_part = client.post("/segment/batch", files=form(("s.zip", archive))).json()["items"]
    assert [item["filename"] for item in as_body] == ["one/b.dcm", "a.png"]
    assert [item["mask"] for item in as_body] == [item["mask"] for item in as_part]


def test_ndjson_streams_one_line_per_item(
    client: httpx.Client, mixed: list[tuple[str, bytes]]
) -> None:
    headers = {"Accept": "application/x-ndjson"}
    with client.stream("POST", "/segment/batch", files=form(*mixed), headers=headers) as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.iter_lines()]
    assert [line["filename"] for line in lines] == [name for name, _ in mixed]
    assert "error" in lines[1]


def test_zip_holds_masks_and_the_table(
    client: httpx.Client, mixed: list[tuple[str, bytes]]
) -> None:
    files = form(("=cmd().png", mixed[2][1]), *mixed)
    answer = client.post("/segment/batch?format=zip", files=files)
    assert answer.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    names = ["=cmd()_mask.png", "z_mask.png", "a_mask.png", "z-2_mask.png", "statistics.csv"]
    assert archive.namelist() == names
    rows = list(csv.DictReader(io.StringIO(archive.read("statistics.csv").decode())))
    assert [row["error"] for row in rows] == ["", "", "unsupported_media_type", "", ""]
    assert rows[0]["filename"] == "'=cmd().png"
    assert [row["result"] for row in rows] == ["'=cmd()_mask.png", *names[1:2], "", *names[2:4]]
    mask = np.asarray(Image.open(io.BytesIO(archive.read("z_mask.png"))))
    assert int(rows[1]["pixels"]) == np.count_nonzero(mask)
    assert int(rows[1]["right_pixels"]) + int(rows[1]["left_pixels"]) == int(rows[1]["pixels"])
    assert rows[3]["laa_950"] == ""  # a picture without calibration
    again = client.post("/segment/batch", files=files, headers={"Accept": "application/zip"})
    assert again.content == answer.content


def test_names_keep_folders_and_letters_and_lead_nowhere_else(
    client: httpx.Client, grey_png: bytes
) -> None:
    """Masks stand where their slices stood, under names that unpack safely on every system."""
    sent = {
        "größe/Schicht 1.png": "größe/Schicht 1_mask.png",
        "1.2.840.1": "1.2.840.1_mask.png",
        "../../etc/x.png": "etc/x_mask.png",
        "/root/y.png": "root/y_mask.png",
        "C:/scans/肺.png": "C_/scans/肺_mask.png",
        "": "0005_mask.png",
        "a?b.png": "a_b_mask.png",
        "con/Aux.2/contrast.png": "con_/Aux_.2/contrast_mask.png",
        "...": "0008_mask.png",
        "/".join(map(str, range(20))) + ".png": "/".join(map(str, range(4, 20))) + "_mask.png",
        "a" * 250 + ".png": "a" * 200 + "_mask.png",
    }
    files = form(*((name, grey_png) for name in sent))
    answer = client.post("/segment/batch?format=zip", files=files)
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.namelist() == [*sent.values(), "statistics.csv"]
    assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o100644}
    rows = csv.DictReader(io.StringIO(archive.read("statistics.csv").decode(), newline=""))
    assert {row["filename"]: row["result"] for row in rows} == sent


def test_masks_of_one_name_are_told_apart(client: httpx.Client, grey_png: bytes) -> None:
    """By their endings, else by a number; what differs in case alone counts as the same."""
    sent = ["a.dcm", "a.png", "B/x.png", "b/X.png", "z.png", "z.png", "z-2.png"]
    answer = client.post("/segment/batch?format=zip", files=form(*((n, grey_png) for n in sent)))
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()[:-1]
    assert names[:2] == ["a.dcm_mask.png", "a.png_mask.png"]
    assert names[4:] == ["z_mask.png", "z-3_mask.png", "z-2_mask.png"]
    assert len({name.casefold() for name in names}) == len(sent)


def test_names_of_a_zip_that_does_not_say_that_they_are_utf_8(
    client: httpx.Client, grey_png: bytes
) -> None:
    """As macOS writes them; others are code page 437, as the format has it."""
    archive = packed(("größe.png", grey_png), ("plain.png", grey_png))
    unsaid = archive.replace(b"\x00\x08\x08\x00", b"\x00\x00\x08\x00")
    assert unsaid != archive
    dos = packed(("gr#sse.png", grey_png)).replace(b"gr#sse", b"gr\x94sse")
    found = [
        client.post("/segment/batch", content=content).json()["items"][0]["filename"]
        for content in (archive, unsaid, dos)
    ]
    assert found == ["größe.png", "größe.png", "grösse.png"]


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/json, application/zip", "application/json"),
        ("application/zip;q=0.1, application/json", "application/json"),
        ("application/x-ndjson;q=0, */*", "application/json"),
        ("application/json;q=0.5, application/x-ndjson;q=0.6", "application/x-ndjson"),
    ],
)
def test_accept_is_weighed_as_for_a_single_slice(
    client: httpx.Client, accept: str, media_type: str
) -> None:
    files = form(("a", b"no slice"))
    answer = client.post("/segment/batch", files=files, headers={"Accept": accept})
    assert answer.headers["content-type"] == media_type


def nested(dicom: bytes) -> bytes:
    return packed(("inner.zip", packed(("a.dcm", dicom))), ("a.dcm", dicom))


def test_an_archive_within_the_archive_is_refused(client: httpx.Client, dicom: bytes) -> None:
    items = client.post("/segment/batch", content=nested(dicom)).json()["items"]
    assert "archive within" in items[0]["error"]["detail"]
    assert "mask" in items[1]


def test_names_of_other_systems_are_none_that_point_elsewhere(
    client: httpx.Client, dicom: bytes
) -> None:
    """Old Windows tools separate folders by backslashes; elsewhere a time may be in a name."""
    content = packed(
        (".", b""), ("scans\\", b""), ("scans\\a.dcm", dicom), ("scans/12:30:05.dcm", dicom)
    )
    answer = client.post("/segment/batch", params={"format": "zip"}, content=content)
    assert answer.status_code == 200, answer.text
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert names == ["scans/a_mask.png", "scans/12_30_05_mask.png", "statistics.csv"]


@pytest.mark.parametrize(
    "name",
    ["../a.dcm", "/etc/a.dcm", "x/../../a.dcm", "C:\\a.dcm", "..\\a.dcm", "C:a.dcm", "\\a.dcm"],
)
def test_names_that_point_elsewhere_are_refused(
    client: httpx.Client, dicom: bytes, name: str
) -> None:
    answer = client.post("/segment/batch", content=packed((name, dicom)))
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


def test_damaged_encrypted_and_foreign_archives(client: httpx.Client, dicom: bytes) -> None:
    whole = packed(("a.dcm", dicom), ("b.dcm", dicom))
    assert client.post("/segment/batch", content=whole[:-30]).status_code == 400
    encrypted = bytearray(whole)
    place = encrypted.index(b"PK\x01\x02")
    struct.pack_into("<H", encrypted, place + 8, 1)
    assert client.post("/segment/batch", content=bytes(encrypted)).status_code == 400
    spoilt = bytearray(whole)
    spoilt[200:260] = bytes(60)
    items = client.post("/segment/batch", content=bytes(spoilt)).json()["items"]
    assert items[0]["error"]["code"] == "undecodable_image"
    assert "mask" in items[1]
    lzma = packed(("a.dcm", dicom), method=zipfile.ZIP_LZMA)
    items = client.post("/segment/batch", content=lzma).json()["items"]
    assert items[0]["error"]["code"] == "unsupported_media_type"


def test_a_wrong_model_is_said_before_anything_is_unpacked(
    client: httpx.Client, dicom: bytes
) -> None:
    """Of a zip by the address alone; of a form by its fields too."""
    for asked in ({"content": b"no zip"}, {"files": form(("a.dcm", dicom))}):
        answer = client.post("/segment/batch?model=other", **asked)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
    fields = {"model": "other"}
    answer = client.post("/segment/batch", data=fields, files=form(("a.dcm", dicom)))
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")


def test_nothing_to_do_and_wrong_kinds(client: httpx.Client, dicom: bytes) -> None:
    for content, status in ((b"", 415), (dicom, 415), (packed(), 400)):
        assert client.post("/segment/batch", content=content).status_code == status
    other = client.post("/segment/batch", files={"file": ("a.dcm", dicom)})
    assert (other.status_code, other.json()["code"]) == (400, "malformed_request")
    assert client.post("/segment/batch?format=png", content=b"x").status_code == 422


def test_limits_of_items_bytes_and_ratio(models: Path, dicom: bytes) -> None:
    limits = {"max_batch_items": 2, "max_body_bytes": 2 << 20, "max_batch_bytes": 5 << 20}
    with running(models, **limits) as service:
        post = service.client.post
        three = [(f"{number}.dcm", dicom) for number in range(3)]
        assert post("/segment/batch", files=form(*three[:2])).status_code == 200
        assert post("/segment/batch", files=form(*three)).json()["code"] == "too_many_items"
        assert post("/segment/batch", content=packed(*three)).json()["code"] == "too_many_items"
        assert post("/segment/batch", content=packed(*three[:2])).status_code == 200
        exact, more = (np.random.default_rng(0).bytes((2 << 20) + extra) for extra in (0, 1))
        items = post("/segment/batch", files=form(("a", exact), ("b", more))).json()["items"]
        assert [item["error"]["code"] for item in items] == [
            "unsupported_media_type",
            "body_too_large",
        ]
        (item,) = post("/segment/batch", content=packed(("a", exact))).json()["items"]
        assert item["error"]["code"] == "unsupported_media_type"
        answer = post("/segment/batch", content=packed(("b", more)))
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        noise = np.random.default_rng(0).bytes(3 << 20)
        for archive in (packed(("large", noise)), packed(("dense", bytes((1 << 20) + 1)))):
            answer = post("/segment/batch", content=archive)
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        parts = form(("a.dcm", dicom), ("large", noise))
        good, bad = post("/segment/batch", files=parts).json()["items"]
        assert good["mask"]
        assert bad["error"]["code"] == "body_too_large"
        long = post("/segment/batch", content=noise * 2)
        assert (long.status_code, long.json()["code"]) == (413, "body_too_large")
