"""A real Orthanc in a network namespace of its own, and a proxy that stands in its way.

The namespace keeps it from listening where others could reach it, and lets many have one port.
"""

from __future__ import annotations

import ctypes
import errno
import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.serving import Running

PORT = 8042
PLUGINS = Path("/usr/share/orthanc/plugins")
CLONE_NEWNET = 0x40000000
PATIENCE_S = 20.0
HOP_BY_HOP = ("content-length", "connection", "keep-alive", "transfer-encoding")
Fault = Callable[["Asked"], bool]
"""Answers in Orthanc's place, which it says, or lets a request pass."""


def why_not(*plugins: str) -> str:
    """Why there can be no Orthanc here; empty where there can."""
    if shutil.which("Orthanc") is None or not all((PLUGINS / name).is_file() for name in plugins):
        return "Orthanc is not installed with its DICOMweb and Python plugins"
    alone = ["unshare", "-n", "ip", "link", "set", "lo", "up"]
    if (
        shutil.which("ip")
        and subprocess.run(alone, capture_output=True, check=False).returncode == 0
    ):
        return ""
    return "Orthanc needs a network namespace of its own, which only root may make"


class Orthanc:
    """The server in a folder, which outlives the process."""

    def __init__(
        self, folder: Path, environment: dict[str, str] | None = None, **more: object
    ) -> None:
        self._environment = os.environ | (environment or {})
        content = {
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomServerEnabled": False,
            "HttpPort": PORT,
            "Plugins": [str(PLUGINS / "libOrthancDicomWeb.so")],
            **more,
        }
        self._file = folder / "orthanc.json"
        self._file.write_text(json.dumps(content))
        self.start()

    def start(self) -> None:
        command = f"ip link set lo up && exec Orthanc {self._file}"
        self._process = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
        )
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.ask("GET", "/system") and None
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request from inside its namespace: status, headers and body of the answer."""
        with entered(self.pid):
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=PATIENCE_S)
            connection.connect()
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        try:
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def rest(self, path: str) -> Any:
        return json.loads(self.ask("GET", path)[2])


@contextmanager
def entered(pid: int) -> Iterator[None]:
    """This thread, and what it connects, in the network of another process, which has one.

    Raises:
        OSError: it is in this machine's yet, where somebody's own Orthanc may answer.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    ours, other = Path("/proc/thread-self/ns/net"), Path(f"/proc/{pid}/ns/net")
    if other.readlink() == Path("/proc/self/ns/net").readlink():
        raise OSError(errno.EAGAIN, f"process {pid} has no network of its own")
    with ours.open("rb") as back, other.open("rb") as there:
        if libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            libc.setns(back.fileno(), CLONE_NEWNET)


class Outside:
    """A service for an Orthanc, which reaches nothing beyond its namespace itself."""

    def __init__(self, service: Running) -> None:
        self._client = service.client

    def ask(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        answer = self._client.request(method, path, content=body, headers=headers)
        return answer.status_code, dict(answer.headers), answer.content


class Asked(BaseHTTPRequestHandler):
    """A request on its way to Orthanc."""

    server: Proxy

    def do_GET(self) -> None:
        self.content = self._body()
        self.server.paths.append(f"{self.command} {self.path}")
        self.server.tokens.append(self.headers.get("Authorization"))
        if not any(fault(self) for fault in self.server.faults):
            self.answer(*self.forwarded())

    do_POST = do_GET  # noqa: N815 - so called by the base

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def forwarded(self) -> tuple[int, dict[str, str], bytes]:
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
        return self.server.orthanc.ask(self.command, self.path, self.content, headers)

    def answer(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> bool:
        self.send_response(status)
        for name, value in (headers or {}).items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        return True

    def log_message(self, *_: object) -> None:
        pass


class Proxy(ThreadingHTTPServer):
    """Reachable from here, and obstructive where a test wants it."""

    daemon_threads = True

    def __init__(self, orthanc: Orthanc | Outside, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Asked)
        self.orthanc = orthanc
        self.faults: list[Fault] = []
        self.paths: list[str] = []
        self.tokens: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/dicom-web"

    @contextmanager
    def serving(self) -> Iterator[Proxy]:
        """Its threads are of the network of this call, its socket is where it was made."""
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()

    def handle_error(self, *_: object) -> None:
        """Of clients that have left, and of an Orthanc that was killed."""


@contextmanager
def served(
    folder: Path, environment: dict[str, str] | None = None, **more: object
) -> Iterator[Proxy]:
    """A fresh Orthanc behind a proxy."""
    folder.mkdir(exist_ok=True)
    orthanc = Orthanc(folder, environment, **more)
    try:
        with Proxy(orthanc).serving() as proxy:
            yield proxy
    finally:
        orthanc.kill()
