"""Processes under measurement: the service itself, and endpoints to compare it with."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil


def newest(folder: Path) -> Path:
    """The newest version of a model."""
    versions = [entry for entry in folder.iterdir() if entry.name.isdecimal()]
    return max(versions, key=lambda entry: int(entry.name))


def status(pid: int) -> str:
    """What Linux says of a process; empty for one that is gone, and on other systems."""
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


@dataclass(slots=True)
class Host:
    """A started server process."""

    pid: int
    port: int
    start_s: float

    def rss_mb(self) -> float:
        return psutil.Process(self.pid).memory_info().rss / 1e6

    def peak_mb(self) -> float:
        """The sum of what this process and those below it have held at most, each by itself."""
        family = [self.pid, *(child.pid for child in psutil.Process(self.pid).children(True))]
        found = [re.search(r"VmHWM:\s+(\d+)", status(pid)) for pid in family]
        return sum(int(match[1]) * 1024 / 1e6 for match in found if match)

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@contextlib.contextmanager
def started(command: list[str], ready: str, environment: dict[str, str]) -> Iterator[Host]:
    """Starts a server and waits until it is ready; its log goes nowhere."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | environment | {"LUNGSEG_PORT": str(port), "PORT": str(port)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    host = Host(pid=process.pid, port=port, start_s=0.0)
    try:
        while True:
            with contextlib.suppress(OSError):
                if host.get(ready)[0] == 200:
                    break
            if process.poll() is not None or time.perf_counter() - begun > 60:
                raise SystemExit(f"{' '.join(command)} did not become ready")
            time.sleep(0.01)
        host.start_s = time.perf_counter() - begun
        yield host
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def service(models: Path, model: str, **settings: str) -> contextlib.AbstractContextManager[Host]:
    """The service, with further settings by name."""
    values = {"MODELS_DIR": str(models), "MODEL": model, "RELOAD_INTERVAL_S": "0"} | settings
    environment = {f"LUNGSEG_{name}": value for name, value in values.items()}
    return started(["-m", "lungseg", "serve"], "/readyz", environment)


def endpoint(module: str, bundle: Path) -> contextlib.AbstractContextManager[Host]:
    """An endpoint to compare the service with, on the graph of a bundle."""
    return started(["-m", module], "/health", {"MODEL_FILE": str(bundle / "model.onnx")})
