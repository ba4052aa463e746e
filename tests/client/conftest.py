"""The command line, as a process of its own and in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from lungseg import calling
from lungseg.cli import main

Here = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(autouse=True)
def pauses_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have slept, which it does not here."""
    slept: list[float] = []
    monkeypatch.setattr(calling, "time", SimpleNamespace(sleep=slept.append))
    return slept


@pytest.fixture
def folder(tmp_path: Path, dicom: bytes, grey_png: bytes) -> Path:
    """A DICOM slice, a picture in a folder below, and a hidden file."""
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    (tmp_path / "in" / "a.dcm").write_bytes(dicom)
    (tmp_path / "in" / "deeper" / "b.png").write_bytes(grey_png)
    (tmp_path / "in" / ".hidden").write_bytes(b"x")
    return tmp_path / "in"


def environment_of(models: Path) -> dict[str, str]:
    return {"LUNGSEG_MODEL": "standin", "LUNGSEG_MODELS_DIR": str(models)}


def run(*arguments: object, models: Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """As a user runs it: a process of its own."""
    command = [sys.executable, "-m", "lungseg", *map(str, arguments)]
    environment = os.environ | environment_of(models)
    return subprocess.run(command, input=stdin, capture_output=True, env=environment, check=False)


@pytest.fixture
def here(
    models: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Here:
    """As ``run``, but in this process, which has loaded everything already."""
    for name, value in environment_of(models).items():
        monkeypatch.setenv(name, value)

    def call(*arguments: object) -> subprocess.CompletedProcess[bytes]:
        capfdbinary.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capfdbinary.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return call
