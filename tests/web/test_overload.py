"""Full queues, passed deadlines, clients that leave, large next to small."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import itertools
import json
import math
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from lungseg.formats.archive import write_archive
from lungseg.inference import workers as pool
from lungseg.inference.workers import LARGE_BODY_BYTES
from tests.conftest import encode
from tests.serving import PATIENCE_S, Running, running, wait_until
from tests.standin import write_bundle


@pytest.fixture(scope="module")
def small(models: Path) -> Iterator[Running]:
    """Two workers, and two places in the queue."""
    with running(models, workers=2, queue_size=2, deadline_s=20.0) as started:
        yield started


def post(service: Running, content: bytes, **headers: str) -> http.client.HTTPConnection:
    """Sends a request and does not wait for its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
    connection.request("POST", "/segment", content, headers)
    return connection


def announced(service: Running, path: str, size_bytes: int) -> tuple[int, str, dict[str, object]]:
    """Status, Retry-After and answer to headers that announce a body, of which nothing is sent."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=PATIENCE_S)
    connection.putrequest("POST", path)
    connection.putheader("Content-Length", str(size_bytes))
    connection.endheaders()
    with contextlib.closing(connection), connection.getresponse() as answer:
        return answer.status, answer.headers["retry-after"], json.load(answer)


def test_a_full_queue_is_refused_unread_and_honestly(
    models: Path, grey_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller hears how long the jobs before his would take, in whole seconds upwards."""
    minutes = itertools.count(step=60.0)  # each look at the clock is a minute later
    with running(models, workers=2, queue_size=2) as service:
        monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=minutes.__next__))
        assert service.client.post("/segment", content=grey_png).status_code == 200
        with service.busy(4):
            wait_s = service.state.workers.expected_wait_s
            assert wait_s > 3
            for path in ("/segment", "/segment/batch"):
                status, retry_after, answer = announced(service, path, 999)
                assert (status, answer["code"]) == (503, "overloaded")
                assert retry_after == str(math.ceil(wait_s))
            status, retry_after, answer = announced(service, "/v2/models/standin/infer", 999)
            assert (status, list(answer)) == (503, ["error"])
            assert retry_after == str(math.ceil(wait_s))
            for path in ("/livez", "/readyz", "/metrics", "/models"):
                assert service.client.get(path).status_code == 200
        assert service.client.post("/segment", content=grey_png).status_code == 200


def test_what_waits_is_answered_when_its_turn_comes(small: Running, grey_png: bytes) -> None:
    with ThreadPoolExecutor(1) as callers:
        with small.busy(2):
            answer = callers.submit(small.client.post, "/segment", content=grey_png)
            wait_until(lambda: small.state.workers.waiting == 1)
            shown = small.client.get("/metrics").text
            assert "lungseg_queue_depth 1.0" in shown
            assert "lungseg_busy_workers 2.0" in shown
            assert f"lungseg_buffered_bytes {len(grey_png)}.0" in shown
        assert answer.result(PATIENCE_S).status_code == 200


def test_a_client_that_leaves_frees_its_place(small: Running, grey_png: bytes) -> None:
    workers, before = small.state.workers, gone(small)
    with small.busy(2):
        leaving = [post(small, grey_png) for _ in range(2)]
        wait_until(lambda: workers.waiting == 2)
        assert small.client.post("/segment", content=grey_png).status_code == 503
        for connection in leaving:
            connection.close()
        wait_until(lambda: workers.waiting == 0)
    wait_until(lambda: gone(small) == before + 2)


def gone(service: Running) -> float:
    """How many callers left before their answer."""
    counter = 'lungseg_requests_total{code="client_gone",route="/segment",status="499"} '
    return float(metrics(service).partition(counter)[2].partition("\n")[0] or 0)


def test_a_body_that_breaks_off_harms_nobody(small: Running, grey_png: bytes) -> None:
    before = gone(small)
    with socket.create_connection(("127.0.0.1", small.port)) as broken:
        broken.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\nabc")
        wait_until(lambda: small.state.lifecycle.buffered_bytes == 3)
        broken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # resets
    wait_until(lambda: small.state.lifecycle.buffered_bytes == 0)
    wait_until(lambda: gone(small) == before + 1)
    assert small.client.post("/segment", content=grey_png).status_code == 200


def test_a_deadline_is_kept_while_waiting_and_while_receiving(
    models: Path, grey_png: bytes
) -> None:
    """The answer comes while what it waits for goes on."""
    with running(models, workers=1, deadline_s=0.4) as hasty:
        with hasty.busy(1):
            answer = hasty.client.post("/segment", content=grey_png)
            assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
            # Nothing of it is left in the queue, so no work is wasted on it later.
            wait_until(lambda: hasty.state.workers.waiting == 0)

        with socket.create_connection(("127.0.0.1", hasty.port), PATIENCE_S) as slow:
            slow.sendall(b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
            assert b" 504 " in slow.recv(4096)


def test_work_that_nobody_waits_for_stops_before_its_next_stage(
    models: Path, grey_png: bytes
) -> None:
    """After its deadline, and after its caller left, alone or in a batch: no mask is made."""
    files = [("files", ("a.png", grey_png))] * 3
    batch = httpx.Request("POST", "http://x/segment/batch", files=files)
    batch_headers, lines = dict(batch.headers), {"Accept": "application/x-ndjson"}
    asked = [
        ("/segment", grey_png, {}, 499),
        ("/segment/batch", batch.read(), batch_headers, 499),
        ("/segment/batch", batch.read(), batch_headers | lines, 200),
    ]
    with running(models, workers=1) as service:
        workers, lifecycle = service.state.workers, service.state.lifecycle
        for path, content, headers, _ in asked:
            with slow_inference(service) as begun:
                leaving = http.client.HTTPConnection("127.0.0.1", service.port)
                leaving.request("POST", path, content, headers)
                assert begun.wait(PATIENCE_S)
                leaving.close()
                wait_until(lambda: not lifecycle.in_flight)
            wait_until(lambda: workers.waiting + workers.running == 0)
        assert "lungseg_masks_total 0.0" in metrics(service)
        for path, _, _, status in asked:
            labels = f'code="client_gone",route="{path}",status="{status}"'
            assert f"lungseg_requests_total{{{labels}}} 1.0" in metrics(service)
        assert service.client.post("/segment", content=grey_png).status_code == 200
        assert "lungseg_masks_total 1.0" in metrics(service)


def test_items_of_a_batch_wait_for_a_place(models: Path, grey_png: bytes) -> None:
    """The batch was let in, so that a queue that is full meanwhile refuses none of them."""
    files = [("files", ("a.png", grey_png))] * 2
    with running(models, workers=2, queue_size=0) as service, ThreadPoolExecutor(1) as callers:
        with service.busy(1), slow_inference(service) as begun:
            answer = callers.submit(service.client.post, "/segment/batch", files=files)
            assert begun.wait(PATIENCE_S)
        items = answer.result(PATIENCE_S).json()["items"]
    assert ["mask" in item for item in items] == [True, True]


def test_items_of_a_batch_have_the_time_of_their_request(models: Path, grey_png: bytes) -> None:
    """Who computes by then and who still waits is told so; nothing goes on for nobody."""
    files = [("files", ("a.png", grey_png))] * 2
    with running(models, workers=2, queue_size=0, deadline_s=1.0) as service:
        with service.busy(1), slow_inference(service):
            items = service.client.post("/segment/batch", files=files).json()["items"]
        errors = [(item["error"]["code"], item["error"]["status"]) for item in items]
        assert errors == [("deadline_exceeded", 504), ("overloaded", 503)]
        wait_until(lambda: not service.state.workers.running)
        assert "lungseg_masks_total 0.0" in metrics(service)


def test_large_slices_leave_a_worker_to_small_ones(models: Path, grey_png: bytes) -> None:
    """However many large slices are computed or wait, a small one is answered meanwhile."""
    with running(models, workers=2) as service, service.busy(6, size_bytes=LARGE_BODY_BYTES + 1):
        assert (service.state.workers.running, service.state.workers.waiting) == (1, 5)
        assert service.client.post("/segment", content=grey_png).status_code == 200


def test_bodies_in_memory_are_limited_in_all(models: Path) -> None:
    with running(models, max_buffered_bytes=50_000) as service:
        holding = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(2)]
        head = b"POST /segment HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\n"
        holding[0].sendall(head + bytes(39_999))
        wait_until(lambda: service.state.lifecycle.buffered_bytes == 39_999)
        holding[1].sendall(head + bytes(39_999))
        refused = holding[1].recv(4096)
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in refused
        for connection in holding:
            connection.close()
        wait_until(lambda: service.state.lifecycle.buffered_bytes == 0)


def test_the_limit_of_bytes_in_memory_is_exact(models: Path) -> None:
    """A file is held twice while it is copied out of its form."""
    with running(models, max_buffered_bytes=20_000) as service:

        def code(path: str, **body: Any) -> str:
            answer = service.client.post(path, **body)
            assert (answer.status_code == 503) == (answer.headers.get("retry-after") == "1")
            return answer.json()["code"]

        assert code("/segment", content=bytes(20_000)) == "unsupported_media_type"
        assert code("/segment", content=bytes(20_001)) == "overloaded"
        for size, said in ((9_000, "unsupported_media_type"), (11_000, "overloaded")):
            assert code("/segment", files={"file": ("a", bytes(size))}) == said
        archive = write_archive({"a": np.random.default_rng(0).bytes(11_000)})
        assert code("/segment/batch", files={"files": ("a.zip", archive)}) == "overloaded"
        wait_until(lambda: not service.state.lifecycle.buffered_bytes)


def test_what_compressed_bodies_unpack_to_is_counted_and_waits_with_the_large(
    models: Path,
) -> None:
    """Small as they come, large as they are held."""
    unpacked = encode_npy(np.zeros((1024, 1100), np.float32))
    packed = gzip.compress(unpacked)
    assert len(packed) < 10_000 < LARGE_BODY_BYTES < len(unpacked)
    headers = {"Content-Encoding": "gzip"}
    with running(models, workers=2, max_buffered_bytes=len(unpacked) + 2 * len(packed)) as service:
        workers, lifecycle = service.state.workers, service.state.lifecycle
        with service.busy(1, size_bytes=LARGE_BODY_BYTES + 1):
            connection = post(service, packed, **headers)
            wait_until(lambda: lifecycle.buffered_bytes == len(unpacked))
            wait_until(lambda: workers.waiting == 1)  # although a worker for small ones is free
            refused = service.client.post("/segment", content=packed, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert connection.getresponse().status == 200
        connection.close()
        wait_until(lambda: not lifecycle.buffered_bytes)


def test_members_of_a_zip_are_counted_while_they_are_unpacked(models: Path) -> None:
    """Each as long as it is computed, beside the archive."""
    noise = np.random.default_rng(0).integers(0, 2, (1024, 1100))
    content = encode_npy(noise.astype(np.float32))
    packed = write_archive({"a.npy": content, "b.npy": content})
    with running(models, workers=4) as service:
        lifecycle = service.state.lifecycle
        with ThreadPoolExecutor(1) as callers, slow_inference(service):
            answer = callers.submit(service.client.post, "/segment/batch", content=packed)
            # Two large ones at a time: half as many as there are workers.
            wait_until(lambda: lifecycle.buffered_bytes == len(packed) + 2 * len(content))
        assert [item["image"]["width"] for item in answer.result().json()["items"]] == [1100, 1100]
        wait_until(lambda: not lifecycle.buffered_bytes)


def test_what_a_job_holds_is_counted_when_its_request_is_over(
    models: Path, grey_png: bytes
) -> None:
    """A thread that goes on after a 504 holds the body as long."""
    with running(models, workers=1, deadline_s=0.4) as service:
        lifecycle = service.state.lifecycle
        for sent in ({"content": grey_png}, {"files": {"file": ("a.png", grey_png)}}):
            with slow_inference(service):
                answer = service.client.post("/segment", **sent)
                assert answer.status_code == 504
                wait_until(lambda: not lifecycle.in_flight)
                received = int(answer.request.headers["content-length"])
                assert lifecycle.buffered_bytes == received
            wait_until(lambda: not lifecycle.buffered_bytes)
        assert "lungseg_masks_total 0.0" in metrics(service)  # the thread stopped, too


@contextlib.contextmanager
def slow_inference(service: Running) -> Iterator[threading.Event]:
    """Keeps every inference waiting, as a slow network would; the event says that one began."""
    begun, gate, runner = threading.Event(), threading.Event(), service.state.pipeline.runner
    hears = runner.on_batch

    def held(_size: int) -> None:
        begun.set()
        gate.wait(PATIENCE_S)

    object.__setattr__(runner, "on_batch", held)
    try:
        yield begun
    finally:
        gate.set()
        object.__setattr__(runner, "on_batch", hears)


def encode_npy(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, pixels)
    return stream.getvalue()


@pytest.mark.parametrize(("mode", "window_s"), [("waiting", 0.0), ("window", 0.02)])
def test_batching_gives_every_caller_its_own_mask(
    models: Path, service: Running, mode: str, window_s: float
) -> None:
    """And a window where one is set; what waits when its turn comes runs as one."""
    rows = np.arange(337)[:, None]
    slices = [
        encode(np.where(rows < cut, 20, 200).astype(np.uint8) * np.ones((1, 511), np.uint8), "PNG")
        for cut in range(30, 330, 20)
    ]
    alone = [service.client.post("/segment?format=png", content=s).content for s in slices]
    changes = {"batching": mode, "batch_window_ms": 20.0, "batch_max_size": 6}
    threads = set(threading.enumerate())
    with running(models, workers=6, **changes) as joined:
        batcher = joined.state.pipeline.runner.batcher
        assert (batcher.window_s, batcher.max_size) == (window_s, 6)
        with ThreadPoolExecutor(12) as callers:
            with joined.inferring():
                answers = [
                    callers.submit(joined.client.post, "/segment?format=png", content=content)
                    for content in slices
                ]
                wait_until(lambda: "lungseg_batch_queue_depth 6.0" in metrics(joined))
            together = [answer.result(PATIENCE_S).content for answer in answers]
        text = metrics(joined)
    assert together == alone
    count = next(line for line in text.splitlines() if line.startswith("lungseg_batch_size_count"))
    # The six that waited ran as one; the one that they waited for was not a caller's.
    assert float(count.split()[1]) <= 1 + 1 + len(slices) - 6
    left = {thread.name for thread in set(threading.enumerate()) - threads}
    assert not [name for name in left if name.startswith("lungseg")]


def test_what_waits_for_a_batch_leaves_it_with_its_request(models: Path, grey_png: bytes) -> None:
    """No inference is run for it when the batch before it ends."""
    with running(models, workers=1, batching="waiting", deadline_s=0.5) as service:
        for count in (1, 2):
            with service.inferring():
                if count == 1:
                    answer = service.client.post("/segment", content=grey_png)
                    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
                    # Its thread is told by its own clock, which may be a little later.
                    wait_until(lambda: service.state.workers.running == 0)
        assert "lungseg_batch_size_count 2.0" in metrics(service)


def test_waiting_for_a_batch_is_no_inference(models: Path, grey_png: bytes) -> None:
    """It counts as time in the queue."""
    with (
        running(models, workers=1, batching="waiting") as service,
        ThreadPoolExecutor(1) as callers,
    ):
        with service.inferring():
            answer = callers.submit(service.client.post, "/segment", content=grey_png)
            wait_until(lambda: "lungseg_batch_queue_depth 1.0" in metrics(service))
            waits = time.perf_counter()
            for _ in range(30):
                metrics(service)
            begins = time.perf_counter()
        spent_ms = answer.result(PATIENCE_S).json()["timings_ms"]
        ended = time.perf_counter()
    assert spent_ms["queue"] >= (begins - waits) * 1000
    assert spent_ms["inference"] <= (ended - begins) * 1000


def test_versions_never_share_an_inference(tmp_path: Path, grey_png: bytes) -> None:
    """Though their slices wait together."""
    for version, cut in (("1", 60), ("2", 90)):
        write_bundle(tmp_path, version=version, cut=cut)
    paths = [f"/segment?format=png&version={version}" for version in ("1", "2", "1")]
    with running(tmp_path, workers=3, batching="waiting") as service:
        alone = [service.client.post(path, content=grey_png).content for path in paths]
        assert len(set(alone)) == 2
        with ThreadPoolExecutor(3) as callers:
            with service.inferring():
                answers = [
                    callers.submit(service.client.post, path, content=grey_png) for path in paths
                ]
                wait_until(lambda: "lungseg_batch_queue_depth 3.0" in metrics(service))
            assert [answer.result(PATIENCE_S).content for answer in answers] == alone


def metrics(service: Running) -> str:
    return service.client.get("/metrics").text
