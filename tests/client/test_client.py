"""The client against the real service, and against one that is overloaded."""

from __future__ import annotations

import io
import json
import pickle
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import httpx
import numpy as np
import pytest

import lungseg
from lungseg.answers import SUMMARY
from lungseg.client import Client, ServiceError
from tests.serving import Running, running
from training.synthetic.phantom import Phantom


class Scripted:
    """A server that gives prepared answers: what the real one does under a storm."""

    def __init__(
        self, *answers: tuple[int, dict[str, str], bytes], seen: bytes = b"", status: int = 200
    ) -> None:
        self.paths: list[str] = []
        waiting = list(answers)
        paths = self.paths

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                paths.append(self.path)
                status, headers, body = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                if status != BREAKS:
                    self.answer(status, headers, body)

            def do_GET(self) -> None:
                self.answer(status, {}, seen)

            def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in (*headers.items(), ("Content-Length", str(len(body)))):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


BREAKS = 0
PROBLEM = b'{"code": "overloaded", "detail": "the queue is full"}'
BUSY = (503, {"Retry-After": "0", "X-Request-ID": "r1"}, PROBLEM)
PNG = (
    200,
    {"Content-Type": "image/png", "X-Segmentation": json.dumps(dict.fromkeys(SUMMARY))},
    b"picture",
)


def test_a_typed_result_with_the_mask_as_an_array(
    service: Running, dicom: bytes, phantom: Phantom, tmp_path: Path
) -> None:
    path = tmp_path / "slice.dcm"
    path.write_bytes(dicom)
    with Client(service.url) as client:
        result = client.segment(path)
        same = client.segment(dicom, spacing_mm=(1.0, 1.0), allow_non_ct=True, model=None)
        npy = client.fetch(dicom, "npy")
        assert client.models()[0]["name"] == "standin"
    assert result.mask.dtype == bool
    assert result.mask.shape == phantom.hu.shape
    assert np.array_equal(result.mask, np.load(io.BytesIO(npy.content)))
    assert np.array_equal(result.mask, same.mask)
    assert result.statistics["pixels"] == result.mask.sum()
    assert npy.summary["statistics"]["pixels"] == result.mask.sum()
    assert npy.media_type == "application/x-npy"
    assert result.image["intensity_unit"] == "HU"
    assert result.model["name"] == "standin"
    assert isinstance(result.flags, tuple)


def test_arrays_are_sliced_like_files(service: Running, phantom: Phantom) -> None:
    """An array in HU gives the mask that the same HU give as a file."""
    with Client(service.url) as client:
        result = client.segment(phantom.hu.astype(np.int16), unit="HU", spacing_mm=(0.7, 0.6))
    assert result.image["intensity_unit"] == "HU"
    assert result.image["spacing_mm"] == [0.7, 0.6]
    assert result.mask.shape == phantom.hu.shape
    assert result.statistics["density"]["laa_950"] is not None


def test_a_batch_answers_in_order_and_a_bad_slice_fails_alone(
    service: Running, dicom: bytes, grey_png: bytes
) -> None:
    with Client(service.url) as client:
        first, bad, last = client.segment_batch([dicom, b"text", grey_png])
        assert np.array_equal(first.mask, client.segment(dicom).mask)
        assert np.array_equal(last.mask, client.segment(grey_png).mask)
    assert isinstance(bad, ServiceError)
    assert (bad.status, bad.code) == (415, "unsupported_media_type")


def test_refusals_become_errors_that_say_why(service: Running) -> None:
    with Client(service.url) as client, pytest.raises(ServiceError) as raised:
        client.segment(b"text")
    assert (raised.value.status, raised.value.code) == (415, "unsupported_media_type")
    assert isinstance(raised.value, lungseg.LungsegError)
    assert "expected PNG" in raised.value.detail
    assert raised.value.request_id in str(raised.value)


def test_errors_survive_a_pool_of_processes(service: Running) -> None:
    """What cannot be unpickled hangs a pool for ever."""
    with Client(service.url) as client, pytest.raises(ServiceError) as raised:
        client.segment(b"text")
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.__dict__) == (str(raised.value), raised.value.__dict__)


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b"null", b'{"a": 1}', b'{"mask": {}}'])
def test_another_servers_answers_are_service_errors(body: bytes) -> None:
    with Scripted((200, {}, body)) as server, Client(server.url) as client:
        for ask in (
            lambda: client.segment(b"x"),
            lambda: client.fetch(b"x", "png"),
            lambda: client.segment_batch([b"x"]),
        ):
            with pytest.raises(ServiceError) as raised:
                ask()
            assert raised.value.code == "unknown"


def test_what_no_repetition_mends_is_said_at_once() -> None:
    for url in (
        "foo:1/x",
        "localhost:8000",
        "ftp://localhost",
        "http://",
        "http://[::1",
        "http://a/#b",
        "http://a/?b=c",
        "http://a:65536",
        "",
    ):
        with pytest.raises(lungseg.LungsegError, match=f"received {re.escape(url) or 'none'}$"):
            Client(url)
    with pytest.raises(lungseg.LungsegError, match="API key"):
        Client("http://127.0.0.1:9", api_key="bad\nkey")


def test_a_batch_of_nothing_is_nothing() -> None:
    with Client("http://127.0.0.1:9") as client:
        assert client.segment_batch([]) == []


def test_api_keys_are_sent(models: Path, dicom: bytes) -> None:
    with running(models, api_keys=("secret",), ready=True) as service:
        with Client(service.url, api_key="secret") as client:
            assert client.segment(dicom).mask.any()
        with Client(service.url) as client:
            for ask in (lambda: client.segment(dicom), client.models):
                with pytest.raises(ServiceError) as raised:
                    ask()
                assert (raised.value.status, raised.value.code) == (401, "unauthorized")


def test_overload_is_waited_out(tmp_path: Path) -> None:
    with Scripted(BUSY, BUSY, PNG) as server, Client(server.url) as client:
        assert client.fetch(b"x", "png").content == b"picture"
        assert len(server.paths) == 3


@pytest.mark.parametrize(
    ("options", "retries"), [({}, 4), ({"retries": 2}, 2), ({"retries": 0}, 0)]
)
def test_patience_ends_after_the_retries(
    options: dict[str, int], retries: int, pauses_s: list[float]
) -> None:
    with Scripted(BUSY) as server, Client(server.url, **options) as client:
        with pytest.raises(ServiceError) as raised:
            client.fetch(b"x", "png")
        assert raised.value.code == "overloaded"
        assert (len(server.paths), len(pauses_s)) == (retries + 1, retries)


def test_pauses_double_from_a_quarter_of_a_second_to_half_a_minute(pauses_s: list[float]) -> None:
    """Each within a quarter of that, so that callers who were refused together come apart."""
    with (
        Scripted(BUSY) as server,
        Client(server.url, retries=9) as client,
        pytest.raises(ServiceError),
    ):
        client.fetch(b"x", "png")
    usual_s = [0.25 * 2**number for number in range(7)]
    shares = [pause_s / usual for pause_s, usual in zip(pauses_s, usual_s, strict=False)]
    assert all(0.75 <= share <= 1.25 for share in shares)
    assert len(set(shares)) == len(shares)
    assert pauses_s[8] == 30.0


@pytest.mark.parametrize(("asked", "waited_s"), [("7", 7), ("30", 30), ("soon", 0.25), ("31", 0)])
def test_retry_after_is_honoured_and_too_long_a_wait_declined(
    asked: str, waited_s: float, pauses_s: list[float]
) -> None:
    busy = (503, {"Retry-After": asked}, PROBLEM)
    with Scripted(busy, PNG) as server, Client(server.url) as client:
        if waited_s:
            assert client.fetch(b"x", "png").content == b"picture"
        else:
            with pytest.raises(ServiceError):
                client.fetch(b"x", "png")
    assert pauses_s == ([pytest.approx(waited_s, rel=0.25)] if waited_s else [])
    assert waited_s < 1 or pauses_s == [waited_s]


@pytest.mark.parametrize(
    ("error", "requests"),
    [
        (httpx.ConnectError, 5),
        (httpx.ConnectTimeout, 5),
        (httpx.PoolTimeout, 5),
        (httpx.ReadTimeout, 2),
        (httpx.ReadError, 2),
        (httpx.RemoteProtocolError, 2),
        (httpx.UnsupportedProtocol, 1),
        (httpx.LocalProtocolError, 1),
    ],
)
def test_what_no_server_saw_is_repeated_and_what_may_have_ended_one_once(
    error: type[httpx.TransportError], requests: int
) -> None:
    """And what is wrong with the request itself, never."""
    seen: list[httpx.Request] = []

    def fail(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        raise error("no")

    with Client("http://x", transport=httpx.MockTransport(fail)) as client, pytest.raises(error):
        client.segment(b"x")
    assert len(seen) == requests


@pytest.mark.parametrize(("options", "timeout_s"), [({}, 60.0), ({"timeout_s": 5.0}, 5.0)])
def test_a_request_says_whose_it_is_and_waits_a_minute(
    options: dict[str, float], timeout_s: float
) -> None:
    """For connecting and for each part of the answer; a path behind the host is kept."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"models": []})

    transport = httpx.MockTransport(answer)
    with Client("http://x:65535/lungs", api_key="k", transport=transport, **options) as client:
        assert client.models() == []
    (request,) = seen
    assert str(request.url) == "http://x:65535/lungs/models"
    assert (request.headers["user-agent"], request.headers["x-api-key"]) == ("lungseg-client", "k")
    assert set(request.extensions["timeout"].values()) == {timeout_s}


@pytest.mark.parametrize(("timeout_s", "wait_s"), [(60.0, 330.0), (400.0, 400.0)])
def test_a_volume_may_wait_behind_others(timeout_s: float, wait_s: float) -> None:
    """The service says nothing until it is begun, and gives it 300 s by default."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(413)

    transport = httpx.MockTransport(answer)
    with Client("http://x", timeout_s=timeout_s, transport=transport) as client:
        for source in (b"x", [b"x", b"y"]):
            with pytest.raises(ServiceError):
                client.fetch_volume(source, "json")
    waits = {tuple(request.extensions["timeout"].items()) for request in seen}
    others = (("connect", timeout_s), ("read", wait_s), ("write", timeout_s), ("pool", timeout_s))
    assert waits == {others}


@pytest.mark.parametrize("status", [400, 429, 500, 502, 504])
def test_other_errors_are_not_repeated_and_foreign_answers_survive(status: int) -> None:
    with Scripted((status, {}, b"<html>")) as server, Client(server.url) as client:
        with pytest.raises(ServiceError) as raised:
            client.fetch(b"x", "png")
        assert (raised.value.code, raised.value.status) == ("unknown", status)
        assert len(server.paths) == 1


def test_a_request_whose_connection_broke_is_repeated_once() -> None:
    """It may be what ended its server, and the next one would be ended, too."""
    broken = (BREAKS, {}, b"")
    with Scripted(broken, PNG) as server, Client(server.url) as client:
        assert client.fetch(b"x", "png").content == b"picture"
    with Scripted(broken) as server, Client(server.url) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.fetch(b"x", "png")
        assert len(server.paths) == 2


def test_nobody_there(pauses_s: list[float]) -> None:
    with Client("http://127.0.0.1:9", retries=1) as client, pytest.raises(httpx.TransportError):
        client.segment(b"x")
    assert len(pauses_s) == 1


def test_it_stands_alone() -> None:
    """Importing the client loads nothing of the service's libraries."""
    code = (
        "import sys, lungseg; lungseg.Client;"
        "print([m for m in sys.modules if m.partition('.')[0] in"
        " ('fastapi', 'starlette', 'pydantic', 'pydicom', 'onnxruntime', 'scipy', 'PIL')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
