"""Every refusal: the documented code, quickly, as a problem document, and the service goes on."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from lungseg.web.errors import PROBLEMS
from tests.conftest import encode
from tests.serving import Running, running
from training.synthetic.phantom import Phantom, dicom_bytes, picture


def huge_png_header() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def check(response: httpx.Response, code: str) -> dict[str, object]:
    problem = response.json()
    assert problem["code"] == code, problem
    assert response.status_code == problem["status"] == PROBLEMS[code][0]
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id"}
    return problem


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


def test_bad_contents_have_their_codes_in_milliseconds(
    client: httpx.Client, phantom: Phantom, grey_png: bytes
) -> None:
    for name, (content, code) in bad_contents(phantom).items():
        begun = time.monotonic()
        problem = check(client.post("/segment", content=content), code)
        assert time.monotonic() - begun < 1.0, name
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
    for path in ("/livez", "/readyz", "/metrics"):
        assert strict.client.get(path).status_code == 200


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
