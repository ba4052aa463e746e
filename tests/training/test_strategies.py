"""Several devices and several processes train one network."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.training

TIMEOUT_S = 240


def start(data: Path, out: Path, strategy: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.training.workers", str(data), str(out), strategy],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | environment,
    )


def finish(*processes: subprocess.Popen[str]) -> list[str]:
    try:
        outputs = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    return outputs


def test_two_devices_of_one_machine(phantoms: Path, tmp_path: Path) -> None:
    """The processor as two logical devices: two epochs, kept like any others."""
    (output,) = finish(start(phantoms, tmp_path / "run", "mirrored"))
    assert "epoch 2/2" in output
    assert json.loads((tmp_path / "run" / "state.json").read_text())["epochs_done"] == 2


def test_two_workers(phantoms: Path, tmp_path: Path) -> None:
    """Two processes on this machine: both train, the first alone writes."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    workers = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    places = [
        json.dumps({"cluster": workers, "task": {"type": "worker", "index": index}})
        for index in range(2)
    ]
    out = tmp_path / "runs" / "run"
    outputs = finish(*(start(phantoms, out, "multiworker", TF_CONFIG=place) for place in places))
    assert "epoch 2/2" in outputs[0]
    assert "epoch" not in outputs[1]
    assert json.loads((out / "state.json").read_text())["epochs_done"] == 2
    assert {path.name for path in out.iterdir()} == {
        "best.keras", "last.keras", "config.toml", "split.csv", "dropped.csv", "material.json",
        "provenance.json", "history.csv", "state.json", "tensorboard",
    }  # fmt: skip


def test_workers_must_know_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TF_CONFIG a multi-worker run says what is missing."""
    from training.errors import DataError
    from training.fitting.strategies import is_chief

    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(DataError, match="environment variable TF_CONFIG"):
        is_chief("multiworker")
