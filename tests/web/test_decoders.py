"""Files that end their decoder, through every door: each costs itself alone."""

from __future__ import annotations

import base64
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from pydicom import uid

from lungseg.client import Client
from lungseg.inference.errors import DeadlineExceeded
from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from lungseg.inference.timing import Deadline, Stopwatch
from lungseg.pipeline import AS_THE_MODEL_SAYS, Pipeline
from tests.formats import jpeg_lossless
from tests.formats.dicoms import compressed, encapsulated, parse, save
from tests.serving import running
from training.synthetic.phantom import dicom_bytes, make_phantom


@pytest.fixture(scope="module")
def plain() -> bytes:
    return dicom_bytes(make_phantom((61, 83), seed=2))


@pytest.fixture(scope="module")
def deadly(plain: bytes) -> bytes:
    """Junk between frame header and Huffman tables makes GDCM 3 abort."""
    frame = jpeg_lossless.encode(make_phantom((61, 83), seed=2).hu.astype(np.uint16), 16)
    table = frame.index(b"\xff\xc4")
    junk = frame[:table] + b"\xfe" * 34 + frame[table:]
    return encapsulated(plain, junk, uid.JPEGLosslessSV1)


@pytest.fixture(scope="module")
def large(plain: bytes) -> bytes:
    """2048 x 2048 pixels of noise in JPEG 2000, which no machine decodes in 20 ms."""
    dataset = parse(plain)
    dataset.Rows = dataset.Columns = 2048
    noise = np.random.default_rng(0).integers(0, 4096, (2048, 2048))
    dataset.PixelData = noise.astype("<u2").tobytes()
    return compressed(save(dataset), uid.JPEG2000Lossless)


def test_a_deadly_file_is_undecodable_and_the_next_one_is_answered(
    client: httpx.Client, deadly: bytes, dicom: bytes
) -> None:
    good = compressed(dicom, uid.JPEGLSLossless)
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda one: client.post("/segment", content=one), [deadly, good] * 8)
        )
    assert [answer.status_code for answer in answers] == [422, 200] * 8
    assert {answer.json()["code"] for answer in answers[::2]} == {"undecodable_image"}


def test_a_deadly_file_costs_a_batch_one_item(
    client: httpx.Client, deadly: bytes, dicom: bytes, grey_png: bytes
) -> None:
    files = [("files", ("x", one)) for one in (dicom, deadly, grey_png, deadly)]
    items = client.post("/segment/batch", files=files).json()["items"]
    codes = [item.get("error", {}).get("code") for item in items]
    assert codes == [None, "undecodable_image", None, "undecodable_image"]


def test_a_deadly_file_within_a_tensor_is_refused(client: httpx.Client, deadly: bytes) -> None:
    data = [base64.b64encode(deadly).decode()]
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data}
    answer = client.post("/v2/models/standin/infer", json={"inputs": [tensor]})
    assert "sound compressed frame" in answer.json()["error"]
    assert answer.status_code == 400
    assert client.get("/v2/health/ready").status_code == 200


def test_a_late_decoder_is_counted_and_logged_without_the_file(
    models: Path, large: bytes, plain: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The settings reach the decoders; the line says why, and nothing of the slice."""
    caplog.set_level(logging.WARNING, "lungseg")
    with running(models, decoder_timeout_s=0.02, decoders=1) as service:
        with Client(service.url) as client, pytest.raises(Exception, match=r"in 0\.02 s"):
            client.segment(large)
        text = service.client.get("/metrics").text
    assert 'lungseg_decoder_restarts_total{reason="late"} 1.0' in text
    assert 'lungseg_decoder_restarts_total{reason="died"} 0.0' in text
    (record,) = [one for one in caplog.records if one.name == "lungseg.app"]
    assert (record.message, record.fields) == ("decoder replaced", {"reason": "late"})


def test_the_limit_of_memory_reaches_the_decoders(models: Path, large: bytes) -> None:
    with running(models, decoder_memory_bytes=24 << 20) as service:
        answer = service.client.post("/segment", content=large)
    assert answer.json()["code"] == "undecodable_image"


def test_a_service_that_ends_takes_its_decoders_along(models: Path, dicom: bytes) -> None:
    """PNG starts none; the first compressed DICOM does."""
    before = set(psutil.Process().children(recursive=True))
    with running(models, decoders=1) as service:
        assert set(psutil.Process().children(recursive=True)) <= before
        answer = service.client.post("/segment", content=compressed(dicom, uid.JPEG2000Lossless))
        assert answer.status_code == 200
        started = set(psutil.Process().children(recursive=True)) - before
        assert len(started) == 2
    assert not any(process.is_running() for process in started)


def test_a_decoder_has_no_more_time_than_its_request(models: Path, large: bytes) -> None:
    """What it did not finish by then is late, which says nothing of the file."""
    model = Model.load(models / "standin" / "1", Engine())
    watch = Stopwatch(Deadline.after(0.05))
    with pytest.raises(DeadlineExceeded):
        Pipeline().segment(large, model, AS_THE_MODEL_SAYS, watch)
