"""The real process: start, signals, reloads under load, drain, exit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from lungseg.inference.model import Model
from lungseg.inference.registry import Registry
from lungseg.server import Server
from tests.formats.tiffs import tiff
from tests.serving import PATIENCE_S, running, wait_until
from tests.standin import write_bundle

ROOT = Path(__file__).parents[2]


@dataclass
class Process:
    popen: subprocess.Popen[str]
    port: int
    client: httpx.Client
    statuses: list[int] = field(default_factory=list)
    """What was answered, 0 where nobody listened."""

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def exit_status(self) -> int:
        return self.popen.wait(PATIENCE_S)

    def status(self, path: str) -> int:
        try:
            self.statuses.append(self.client.get(path).status_code)
        except httpx.TransportError:
            self.statuses.append(0)
        return self.statuses[-1]

    def rss(self) -> int:
        return psutil.Process(self.popen.pid).memory_info().rss


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def process(models: Path, **environment: str) -> Iterator[Process]:
    port = free_port()
    values = {
        "LUNGSEG_PORT": str(port),
        "LUNGSEG_MODELS_DIR": str(models),
        "LUNGSEG_MODEL": "standin",
        "LUNGSEG_RELOAD_INTERVAL_S": "0",
        "LUNGSEG_LINGER_S": "0",
    }
    popen = subprocess.Popen(
        [sys.executable, "-m", "lungseg", "serve"],
        env=os.environ | values | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S)
    started = Process(popen, port, client)
    reader = threading.Thread(target=_collect, args=(popen,), daemon=True)
    reader.start()
    try:
        wait_until(lambda: started.status("/readyz") == 200 or popen.poll() is not None)
        yield started
    finally:
        client.close()
        popen.kill()
        popen.wait()
        reader.join()


LOGS: dict[int, list[str]] = {}


def _collect(popen: subprocess.Popen[str]) -> None:
    lines = LOGS.setdefault(popen.pid, [])
    assert popen.stderr is not None
    lines.extend(popen.stderr)
    popen.stderr.close()


def half_sent(port: int, body: bytes) -> socket.socket:
    """A request whose second half is yet to come."""
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    head = f"POST /segment?format=png HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[: len(body) // 2])
    return connection


def test_sigterm_drains_and_exits_with_0(models: Path, grey_png: bytes) -> None:
    with process(models) as service, contextlib.ExitStack() as stack:
        stack.enter_context(connection := half_sent(service.port, grey_png))
        wait_until(lambda: "lungseg_in_flight 1.0" in service.client.get("/metrics").text)
        service.signal(signal.SIGTERM)
        wait_until(lambda: service.status("/readyz") == 503)
        refused = service.client.post("/segment", content=grey_png)
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
        for path in ("/v2/health/ready", "/v2/models/standin/ready"):
            assert service.status(path) == 503
        assert "lungseg_ready 0.0" in service.client.get("/metrics").text
        assert service.status("/livez") == 200
        connection.sendall(grey_png[len(grey_png) // 2 :])
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert service.exit_status() == 0


def test_work_that_does_not_end_is_cut_after_the_drain_time(models: Path, grey_png: bytes) -> None:
    """Its caller is told why, as is one whose headers are not there yet, and so is the log.

    Were it later, it would be too late by the deadline, or the headers too slow.
    """
    with (
        process(models, LUNGSEG_DRAIN_S="0.2", LUNGSEG_DEADLINE_S="9") as service,
        contextlib.ExitStack() as stack,
    ):
        body = stack.enter_context(half_sent(service.port, grey_png))
        head = stack.enter_context(socket.create_connection(("127.0.0.1", service.port)))
        head.sendall(b"POST /segment HTTP/1.1\r\n")
        wait_until(lambda: "lungseg_in_flight 1.0" in service.client.get("/metrics").text)
        service.signal(signal.SIGTERM)
        for connection in (body, head):
            answer = b"".join(iter(partial(connection.recv, 65536), b""))
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "draining"
        assert service.exit_status() == 0
    lines = [json.loads(line) for line in LOGS[service.popen.pid]]
    codes = [line["code"] for line in lines if line["logger"] == "lungseg.access"]
    assert codes == ["draining", "draining"]
    assert not [line for line in lines if line["level"] == "error"]


def test_sigterm_under_load_resets_nobody(models: Path, grey_png: bytes) -> None:
    """With the default linger every request is answered or cannot connect, kept open or not."""
    with process(models, LUNGSEG_LINGER_S="") as service:
        wrong: list[str] = []
        answered: list[int] = []

        def load(kept: bool) -> None:
            headers = {} if kept else {"Connection": "close"}
            with httpx.Client(base_url=service.client.base_url, timeout=PATIENCE_S) as client:
                while True:
                    try:
                        answer = client.post("/segment", content=grey_png, headers=headers)
                    except httpx.ConnectError:
                        return
                    except httpx.TransportError as error:
                        wrong.append(repr(error))
                        return
                    answered.append(answer.status_code)

        callers = [threading.Thread(target=load, args=(kept,)) for kept in (True, False) * 3]
        for caller in callers:
            caller.start()
        wait_until(lambda: len(answered) > 10)
        service.signal(signal.SIGTERM)
        for caller in callers:
            caller.join()
        assert service.exit_status() == 0
    assert not wrong
    assert set(answered) == {200}


def test_who_connects_just_before_it_stops_listening_is_served(models: Path) -> None:
    """Although nobody has accepted the connection yet: closing alone would reset it."""
    with running(models) as service:
        server = Server(service.server.config, service.state.settings)
        server.servers, server.lifespan = service.server.servers, service.server.lifespan

        async def connect_and_stop() -> socket.socket:
            client = socket.create_connection(("127.0.0.1", service.port), PATIENCE_S)
            await server.stop_listening()
            return client

        stopped = asyncio.run_coroutine_threadsafe(connect_and_stop(), service.loop)
        with stopped.result(PATIENCE_S) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", service.port), PATIENCE_S)


@pytest.mark.parametrize(("first_load_s", "first"), [("10", 200), ("0", 503)])
def test_who_can_connect_is_served(first_load_s: str, first: int) -> None:
    """It listens when its models are loaded, or when that takes too long."""
    settings = {"LUNGSEG_MODEL": "lung-unet", "LUNGSEG_FIRST_LOAD_S": first_load_s}
    with process(ROOT / "models", **settings) as service:
        assert next(filter(None, service.statuses)) == first


def test_sighup_loads_new_versions_and_keys_at_once(tmp_path: Path) -> None:
    """Also where nothing is looked at by itself."""
    write_bundle(tmp_path, version="1")
    keys = tmp_path / "keys"
    keys.write_text("first\n")
    with process(tmp_path, LUNGSEG_API_KEYS_FILE=str(keys)) as service:
        service.client.headers["X-API-Key"] = "first"

        def serving() -> list[str]:
            versions = service.client.get("/models").json()["models"][0]["versions"]
            return [version["version"] for version in versions if version["serving"]]

        write_bundle(tmp_path, version="2")
        assert [serving() for _ in range(50)] == [["1"]] * 50
        service.signal(signal.SIGHUP)
        wait_until(lambda: serving() == ["2"])
        service.client.headers["X-API-Key"] = "second"
        assert service.status("/models") == 401
        with keys.open("a") as file:
            file.write("second\n")
        service.signal(signal.SIGHUP)
        wait_until(lambda: service.status("/models") == 200)


def test_the_keeper_of_the_models_survives_whatever_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that runs out while loading, or anything else in a look, costs that look alone."""
    write_bundle(tmp_path, version="1")
    trouble: list[Exception] = [MemoryError(), RuntimeError(), OSError()]

    def failing(work: Callable[..., Any]) -> Callable[..., Any]:
        def fails_first(*arguments: Any) -> Any:
            if trouble:
                raise trouble.pop()
            return work(*arguments)

        return fails_first

    monkeypatch.setattr(Registry, "_scan", failing(Registry._scan))
    with running(tmp_path, reload_interval_s=0.02, first_load_s=0) as service:
        assert "lungseg_model_reload_failures_total 3.0" in service.client.get("/metrics").text
        trouble += [MemoryError(), MemoryError()]
        monkeypatch.setattr(Model, "load", failing(Model.load))
        write_bundle(tmp_path, version="2")
        wait_until(lambda: service.client.get("/models/standin/versions/2").status_code == 200)
        assert service.client.get("/readyz").status_code == 200


def test_a_version_that_could_not_be_loaded_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the others serve, and /readyz and /models say what happened."""
    write_bundle(tmp_path, version="1")
    load, full = Model.load, True

    def loaded(folder: Path, engine: Any) -> Model:
        if full:
            raise MemoryError
        return load(folder, engine)

    monkeypatch.setattr(Model, "load", loaded)
    with running(tmp_path, ready=False, reload_interval_s=0.02) as service:
        answer = service.client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "model_not_ready")
        assert "version 1: loading it failed (MemoryError)" in answer.json()["detail"]
        full = False
        service.wait_ready()


def test_why_nothing_serves_is_told(tmp_path: Path) -> None:
    """A version that is asked for and not there, one that is refused, and no model at all."""
    write_bundle(tmp_path, version="1")

    def detail(**settings: str) -> str:
        with running(tmp_path, ready=False, **settings) as service:
            return service.client.get("/readyz").json()["detail"]

    assert "version 7 is to serve and is not there; there is 1" in detail(model_version="7")
    assert "not in the models folder" in detail(model="other")
    (tmp_path / "standin" / "1" / "model.onnx").write_bytes(b"damaged")
    assert "version 1: model.onnx has another SHA-256" in detail()


def test_new_versions_are_noticed_at_the_interval(tmp_path: Path) -> None:
    write_bundle(tmp_path, version="1")
    with process(tmp_path, LUNGSEG_RELOAD_INTERVAL_S="0.05") as service:
        write_bundle(tmp_path, version="2")
        wait_until(lambda: service.status("/models/standin/versions/2") == 200)


def test_a_wrong_setting_ends_the_process(models: Path) -> None:
    """With the documented status, and one line; ``test_settings.py`` has all the sentences."""
    with process(models, LUNGSEG_PROVIDERS="NoExecutionProvider") as service:
        assert service.exit_status() == 2
    (said,) = LOGS[service.popen.pid]
    assert said.startswith("lungseg: LUNGSEG_PROVIDERS: expected providers among ")


@pytest.mark.parametrize(
    ("signals", "status"),
    [((signal.SIGINT,), 0), ((signal.SIGTERM, signal.SIGTERM), -signal.SIGTERM)],
)
def test_ctrl_c_and_a_second_signal_end_it_at_once(
    models: Path, grey_png: bytes, signals: tuple[int, ...], status: int
) -> None:
    """Whatever is in flight; a person who presses Ctrl-C did nothing wrong, so that is 0."""
    with process(models, LUNGSEG_DRAIN_S="3600", LUNGSEG_DEADLINE_S="3600") as service:
        with half_sent(service.port, grey_png) as connection:
            wait_until(lambda: "lungseg_in_flight 1.0" in service.client.get("/metrics").text)
            for number, sent in enumerate(signals, 1):
                service.signal(sent)
                if number < len(signals):
                    wait_until(lambda: service.status("/readyz") == 503)
            answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nconnection: close\r\n" in answer.lower()
        assert service.exit_status() == status


@pytest.mark.skipif(sys.platform == "win32", reason="no such terminals")
def test_on_a_terminal_the_log_is_for_people(models: Path) -> None:
    """Text there, JSON elsewhere (the tests above read that); a terminal that goes does no harm."""
    ours, its = os.openpty()
    command = [sys.executable, "-m", "lungseg", "serve", "--port", "0", "--models-dir", str(models)]
    popen = subprocess.Popen(command, stderr=its, env=os.environ | {"LUNGSEG_MODEL": "standin"})
    os.close(its)
    said = ""
    with contextlib.suppress(OSError):  # the terminal closes with the process
        while "Press CTRL+C" not in said:
            said += os.read(ours, 4096).decode()
    address = said.partition("running on ")[2].partition(" ")[0]
    assert httpx.get(f"{address}/readyz").status_code == 200
    os.close(ours)
    popen.terminate()
    assert popen.wait(PATIENCE_S) == 0
    assert " info uvicorn.error Uvicorn running on http://127.0.0.1:" in said
    assert "{" not in said


def test_fifty_reloads_under_load_lose_nothing(tmp_path: Path, grey_png: bytes) -> None:
    """Every answer is whole and from one version; memory is what it was."""
    write_bundle(tmp_path, version="1", cut=60)
    write_bundle(tmp_path, version="2", cut=90)
    with process(tmp_path) as service:
        url = "/v2/repository/models/standin/load"

        def reload(version: str) -> None:
            answer = service.client.post(url, json={"parameters": {"version": version}})
            assert answer.json() == {"name": "standin", "version": version, "load": True}

        pixels: dict[str, int] = {}
        for version in ("1", "2"):
            reload(version)
            answer = service.client.post("/segment", content=grey_png).json()
            pixels[answer["model"]["version"]] = answer["statistics"]["pixels"]
        assert len(set(pixels.values())) == 2

        stop = threading.Event()
        seen: list[tuple[int, str, int]] = []

        def load() -> None:
            with httpx.Client(base_url=service.client.base_url, timeout=PATIENCE_S) as client:
                while not stop.is_set():
                    answer = client.post("/segment", content=grey_png)
                    body = answer.json()
                    found = body.get("statistics", {}).get("pixels", -1)
                    seen.append((answer.status_code, body["model"]["version"], found))

        callers = [threading.Thread(target=load) for _ in range(3)]
        for caller in callers:
            caller.start()
        for number in range(10):
            reload(str(1 + number % 2))
        before = service.rss()
        for number in range(50):
            reload(str(1 + number % 2))
        after = service.rss()
        stop.set()
        for caller in callers:
            caller.join()
    assert len(seen) > 10
    assert {version for _, version, _ in seen} == {"1", "2"}
    for status, version, found in seen:
        assert (status, found) == (200, pixels[version])
    assert after < before * 1.1


def test_the_access_log_is_one_json_line_a_request_without_names(
    models: Path, grey_png: bytes
) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with process(models) as service:
        answer = service.client.post(
            "/segment?format=png",
            files={"file": ("Doe^John.png", grey_png)},
            headers={"X-Request-ID": "r-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"},
        )
        service.client.post("/segment", content=b"Doe^John")
        service.client.get("/Doe/John")
        service.signal(signal.SIGTERM)
        assert service.exit_status() == 0
    lines = [json.loads(line) for line in LOGS[service.popen.pid]]
    first, second, third = (line for line in lines if line["logger"] == "lungseg.access")
    assert (first["request_id"], first["trace_id"], first["status"]) == ("r-1", trace, 200)
    assert first["bytes_in"] == int(answer.request.headers["content-length"])
    assert first["bytes_out"] == len(answer.content)
    assert (first["method"], first["route"], first["code"]) == ("POST", "/segment", "ok")
    assert (first["model"], first["version"]) == ("standin", "1")
    spent_ms = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]))
    for stage in ("queue", "inference", "encode"):
        assert first["stages_ms"][stage] == pytest.approx(float(spent_ms[stage]), abs=0.006)
    assert first["duration_ms"] >= sum(first["stages_ms"].values()) - 0.1
    assert (second["status"], second["code"]) == (415, "unsupported_media_type")
    assert (third["status"], third["route"]) == (404, "unrouted")
    assert "Doe" not in "".join(LOGS[service.popen.pid])


def test_what_c_libraries_print_is_not_in_the_log(models: Path) -> None:
    """libtiff and libjpeg write plain text to standard error, several threads at a time."""
    import json
    from concurrent.futures import ThreadPoolExecutor

    from pydicom.data import get_testdata_file

    damaged = bytearray(tiff(np.zeros((40, 40), np.uint8), compression="lzw"))
    damaged[20:900] = b"\xff" * 880
    twelve_bits = Path(str(get_testdata_file("JPEG-lossy.dcm", download=False))).read_bytes()
    with process(models) as service:

        def post(content: bytes) -> int:
            return service.client.post("/segment?allow_non_ct=true", content=content).status_code

        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(post, [bytes(damaged), twelve_bits] * 6))
        service.signal(signal.SIGTERM)
        assert service.exit_status() == 0
    assert set(statuses) == {200, 422}
    lines = [json.loads(line) for line in LOGS[service.popen.pid]]
    assert sum(line["logger"] == "lungseg.access" for line in lines) == 12
