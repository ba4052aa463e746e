"""Every refusal: the documented code, as a problem document, and the service goes on."""

from __future__ import annotations

import base64
import gzip
import io
import re
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from lungseg.web import errors
from tests.conftest import encode
from tests.serving import PATIENCE_S, Running, running
from training.synthetic.phantom import Phantom, dicom_bytes, picture

CONTRACT = {
    "malformed_request": (400, "The request is malformed"),
    "unauthorized": (401, "An API key is needed"),
    "forbidden": (403, "This is switched off here"),
    "unknown_model": (404, "There is no such model"),
    "not_found": (404, "There is nothing here"),
    "method_not_allowed": (405, "The method is not allowed here"),
    "headers_too_slow": (408, "The headers came too slowly"),
    "body_too_large": (413, "The body is too large"),
    "image_too_large": (413, "The image is too large"),
    "too_many_items": (413, "There are too many items"),
    "volume_too_large": (413, "The volume is too large"),
    "unsupported_media_type": (415, "The content is of no accepted format"),
    "undecodable_image": (422, "The image cannot be decoded"),
    "multi_frame": (422, "The file has several frames"),
    "not_ct": (422, "The object is not a CT slice"),
    "not_grey": (422, "The picture is not grey"),
    "several_volumes": (422, "There are several volumes"),
    "inconsistent_geometry": (422, "The slices form no volume"),
    "invalid_parameter": (422, "A parameter is invalid"),
    "headers_too_large": (431, "The headers are too large"),
    "internal_error": (500, "Something went wrong here"),
    "overloaded": (503, "The service is overloaded"),
    "model_not_ready": (503, "The model is not ready"),
    "draining": (503, "The service is shutting down"),
    "deadline_exceeded": (504, "The answer would come too late"),
}
"""Status and title of each code, as callers rely on them: written here once more on purpose."""


def huge_png_header() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def check(response: httpx.Response, code: str) -> dict[str, Any]:
    problem = response.json()
    status, title = CONTRACT[code]
    assert problem == {
        "type": f"urn:lungseg:problem:{code}",
        "title": title,
        "status": status,
        "detail": problem["detail"],
        "code": code,
        "request_id": response.headers["x-request-id"],
    }
    assert re.fullmatch(r"\w.{9,}", problem["detail"], re.DOTALL)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers.get("retry-after") == ("1" if status == 503 else None)
    assert response.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    return problem


def test_every_code_has_the_status_and_title_of_the_contract() -> None:
    """No other code is there, and each document has its members."""
    assert errors.PROBLEMS == CONTRACT
    for code, (status, title) in CONTRACT.items():
        assert errors.problem_document(code, "Why.", "an-id") == {
            "type": f"urn:lungseg:problem:{code}",
            "title": title,
            "status": status,
            "detail": "Why.",
            "code": code,
            "request_id": "an-id",
        }


def bad_contents(phantom: Phantom) -> dict[str, tuple[bytes, str]]:
    whole = encode(picture(phantom), "PNG")
    colours = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    return {
        "nothing": (b"", "malformed_request"),
        "text": (b"this is no picture", "unsupported_media_type"),
        "colours": (encode(colours, "PNG"), "not_grey"),
        "truncated PNG": (whole[: len(whole) // 2], "undecodable_image"),
        "huge PNG": (huge_png_header(), "image_too_large"),
        "two frames": (dicom_bytes(phantom, NumberOfFrames=2), "multi_frame"),
        "MR": (dicom_bytes(phantom, Modality="MR"), "not_ct"),
        "animation": (animation(), "multi_frame"),
    }


def animation() -> bytes:
    stream = io.BytesIO()
    frames = [Image.fromarray(np.full((8, 9), level, np.uint8)) for level in (0, 200)]
    frames[0].save(stream, "PNG", save_all=True, append_images=frames[1:])
    return stream.getvalue()


def test_bad_contents_have_their_codes(
    client: httpx.Client, phantom: Phantom, grey_png: bytes
) -> None:
    """A size is judged by the header alone: the huge picture has no pixels to decode."""
    for content, code in bad_contents(phantom).values():
        problem = check(client.post("/segment", content=content), code)
        assert "/" not in str(problem["detail"]).replace(" / ", "")
    assert client.post("/segment", content=grey_png).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "threshold=0",
        "threshold=1",
        "threshold=x",
        "format=gif",
        "encoding=yolo",
        "spacing_mm=1",
        "spacing_mm=0,1",
        "spacing_mm=1,2,3",
        "spacing_mm=nan,1",
        "spacing_mm=0.0099,1",
        "spacing_mm=1,100.1",
        "window_hu=-inf,1",
        "window_hu=-32769,1",
        "window_hu=1,65536",
        "largest_components=1001",
        "spacing_mm=Doe^John,1",
        "window_hu=5,5",
        "window_hu=400,-1000",
        "largest_components=-1",
        "model=",
        "version=",
    ],
)
def test_bad_parameters_name_themselves(client: httpx.Client, grey_png: bytes, query: str) -> None:
    response = client.post(f"/segment?{query}", content=grey_png)
    detail = str(check(response, "invalid_parameter")["detail"])
    assert detail.startswith(f"{query.partition('=')[0]}: expected ")
    assert "Doe" not in detail
    assert "unpack" not in detail


@pytest.mark.parametrize(
    "query",
    [
        "spacing_mm=0.01,100",
        "spacing_mm=100,0.01",
        "window_hu=-32768,65535",
        "window_hu=-32768,-32767.5",
        "largest_components=0",
        "largest_components=1000",
        "threshold=0.000001",
        "threshold=0.999999",
        "unit=GREY",
    ],
)
def test_parameters_at_their_limits_are_accepted(client: httpx.Client, query: str) -> None:
    """A slice of one byte a pixel is enough to see it."""
    content = encode(np.zeros((4, 5), np.uint8), "PNG")
    assert client.post(f"/segment?encoding=none&{query}", content=content).status_code == 200


@pytest.mark.parametrize("path", ["/segment", "/segment/batch"])
def test_an_unknown_parameter_is_refused_without_its_name(client: httpx.Client, path: str) -> None:
    """The name is the caller's word: it may be a patient's, pasted into an address."""
    problem = check(client.post(f"{path}?Doe^John=1&Doe^Jane=2", content=b"x"), "invalid_parameter")
    assert problem["detail"] == "expected only the parameters of this endpoint, received another"


def test_bad_forms_are_malformed(client: httpx.Client, grey_png: bytes) -> None:
    boundary = {"Content-Type": "multipart/form-data; boundary=x"}
    whole = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + grey_png
    for content, headers in (
        (whole, boundary),
        (b"no form at all", boundary),
        (whole + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data"}),
        (whole.replace(b'"file"', b'"other"') + b"\r\n--x--\r\n", boundary),
        (whole + b"\r\n" + whole + b"\r\n--x--\r\n", boundary),
        (whole + b"\r\n--x--\r\n", {"Content-Type": "multipart/mixed; boundary=x"}),
    ):
        check(client.post("/segment", content=content, headers=headers), "malformed_request")


def test_unknown_places_and_models(client: httpx.Client, grey_png: bytes) -> None:
    check(client.get("/nowhere"), "not_found")
    check(client.get("/segment"), "method_not_allowed")
    check(client.post("/segment?model=other", content=grey_png), "unknown_model")
    check(client.post("/segment?version=9", content=grey_png), "unknown_model")
    check(client.get("/models/standin/versions/..%2f"), "not_found")
    check(client.get("/models/standin/versions/7"), "unknown_model")


@pytest.fixture(scope="module")
def strict(models: Path) -> Iterator[Running]:
    """A service with keys and small limits."""
    hashed = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # secret
    with running(
        models, api_keys=f"first-key,{hashed}", max_body_bytes=20_000, max_pixels=1000
    ) as started:
        yield started


def test_keys_are_needed_where_they_are_configured(strict: Running) -> None:
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Basic first-key"}):
        check(strict.client.get("/models", headers=headers), "unauthorized")
    for headers in ({"X-API-Key": "first-key"}, {"Authorization": "Bearer secret"}):
        assert strict.client.get("/models", headers=headers).status_code == 200
    for headers in ({"Authorization": "bearer   secret"}, {"authorization": "BEARER secret"}):
        assert strict.client.get("/models", headers=headers).status_code == 200
    for path in ("/livez", "/readyz", "/metrics"):
        assert strict.client.get(path).status_code == 200


def test_a_body_that_announces_too_much_is_refused_unread(strict: Running) -> None:
    """By its headers alone, and not before the key is looked at; at the limit it is awaited."""
    head = b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%b\r\n"
    key = b"X-API-Key: first-key\r\n"
    for size, headers, status in (
        (20_001, key, b"413"),
        (20_001, b"", b"401"),
        (20_000, key + b"Expect: 100-continue\r\n", b"100"),
    ):
        with socket.create_connection(("127.0.0.1", strict.port), PATIENCE_S) as connection:
            connection.sendall(head % (size, headers))
            assert connection.recv(4096).startswith(b"HTTP/1.1 " + status)


def test_a_body_of_just_the_limit_is_taken(strict: Running) -> None:
    """As it comes, in pieces, and unpacked."""
    exact, headers = bytes(20_000), {"X-API-Key": "first-key"}
    packed = headers | {"Content-Encoding": "gzip"}
    for response in (
        strict.client.post("/segment", content=exact, headers=headers),
        strict.client.post("/segment", content=iter([exact]), headers=headers),
        strict.client.post("/segment", content=gzip.compress(exact), headers=packed),
    ):
        check(response, "unsupported_media_type")
    for content, sent in (
        (iter([exact, b"x"]), headers),
        (gzip.compress(exact + b"x"), packed),
    ):
        check(strict.client.post("/segment", content=content, headers=sent), "body_too_large")


def test_bodies_are_counted_whatever_they_announce(strict: Running) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield bytes(1000)

    headers = {"X-API-Key": "first-key"}
    announced = strict.client.post("/segment", content=bytes(30_000), headers=headers)
    streamed = strict.client.post("/segment", content=chunks(), headers=headers)
    for response in (announced, streamed):
        check(response, "body_too_large")
    picture = encode(np.zeros((40, 30), np.uint8), "PNG")
    check(strict.client.post("/segment", content=picture, headers=headers), "image_too_large")
    data = [base64.b64encode(picture).decode()]
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data}
    v2 = strict.client.post("/v2/models/standin/infer", json={"inputs": [tensor]}, headers=headers)
    assert (v2.status_code, "1000 pixels" in v2.json()["error"]) == (413, True)
    picture = encode(np.zeros((40, 25), np.uint8), "PNG")
    assert strict.client.post("/segment", content=picture, headers=headers).status_code == 200


def test_compressed_bodies_are_unpacked_within_the_limit(strict: Running) -> None:
    headers = {"X-API-Key": "first-key", "Content-Encoding": "gzip"}
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    bomb = packer.compress(bytes(1_000_000)) + packer.flush()
    check(strict.client.post("/segment", content=bomb, headers=headers), "body_too_large")
    check(strict.client.post("/segment", content=b"x", headers=headers), "malformed_request")
    headers["Content-Encoding"] = "br"
    check(strict.client.post("/segment", content=b"x", headers=headers), "unsupported_media_type")


def test_without_a_model_the_service_lives_but_is_not_ready(tmp_path: Path) -> None:
    with running(tmp_path, ready=False) as empty:
        assert empty.client.get("/livez").status_code == 200
        check(empty.client.get("/readyz"), "model_not_ready")
        check(empty.client.post("/segment", content=b"x"), "model_not_ready")


def test_a_service_may_take_what_is_no_ct(models: Path, phantom: Phantom) -> None:
    """Where its operator says so, every caller's, and with a flag."""
    with running(models, allow_non_ct=True) as service:
        answer = service.client.post("/segment", content=dicom_bytes(phantom, Modality="MR"))
    assert "not_ct" in [flag["code"] for flag in answer.json()["quality"]["flags"]]
