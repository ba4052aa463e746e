"""The gateway's routes in a real nginx, before replicas that die of what they are sent."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.serving import wait_until

CONFIGURATION = Path(__file__).parents[2] / "docker" / "nginx"
BINARY = shutil.which("nginx")
REPLICAS = 4
pytestmark = pytest.mark.skipif(BINARY is None, reason="needs nginx on the path")


class Dying:
    """A replica that reads a request and then breaks its connection, as a crashed one does."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.received.append(connection.recv(65536))

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def replicas() -> Iterator[list[Dying]]:
    made = [Dying() for _ in range(REPLICAS)]
    yield made
    for replica in made:
        replica.close()


@pytest.fixture
def gateway(replicas: list[Dying], tmp_path: Path) -> Iterator[str]:
    """nginx with the repository's routes, maps and zones; without TLS and name resolution."""
    folder = shutil.copytree(CONFIGURATION, tmp_path / "nginx")
    whole = (folder / "nginx.conf").read_text()
    maps = re.findall(r"^    map .*?^    \}\n", whole, re.M | re.S)
    zones = re.findall(r"^    limit_\w+_zone .*$", whole, re.M)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    servers = "".join(f"server 127.0.0.1:{one.port};" for one in replicas)
    paths = "".join(
        f"{name}_temp_path {tmp_path}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}}\n"
        f"http {{ access_log off; {paths}\n{''.join(zones)}\n{''.join(maps)}\n"
        f"upstream lungseg {{ {servers} }}\n"
        f"server {{ listen 127.0.0.1:{port}; include error-pages.conf; include problems.conf; "
        "include routes.conf; } }\n"
    )
    command = [BINARY, "-e", str(tmp_path / "log"), "-c", str(folder / "nginx.conf")]
    with subprocess.Popen(command) as nginx:
        wait_until(lambda: _listens(port) or nginx.poll() is not None)
        yield f"http://127.0.0.1:{port}"
        nginx.terminate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("path", "size", "most"),
    [("/segment", 1000, 2), ("/segment", 1_900_000, 2), ("/segment", 3_000_000, 1)],
)
def test_what_ends_a_replica_is_sent_to_one_other_at_most(
    gateway: str, replicas: list[Dying], path: str, size: int, most: int
) -> None:
    """What is small enough to be kept is tried once more; what passes through is not."""
    answer = httpx.post(gateway + path, content=bytes(size))
    assert answer.status_code in (502, 503)
    assert sum(len(replica.received) for replica in replicas) == most


def test_replicas_that_take_no_connection_are_passed_over(
    gateway: str, replicas: list[Dying]
) -> None:
    """Nothing was sent to them."""
    for replica in replicas[1:]:
        replica.close()
    httpx.post(f"{gateway}/segment", content=bytes(1000))
    assert 1 <= len(replicas[0].received) <= 2


def test_batches_volumes_and_bodies_without_length_are_sent_once(
    gateway: str, replicas: list[Dying]
) -> None:
    for path in ("/segment/batch", "/segment/volume"):
        httpx.post(f"{gateway}{path}", content=bytes(1000))
    httpx.post(f"{gateway}/segment", content=iter([bytes(1000)]))
    assert sum(len(replica.received) for replica in replicas) == 3
