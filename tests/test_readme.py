"""The README's requests, as they stand there, against the model in ``models/``."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serving import Running, running
from training.synthetic.phantom import make_phantom, write_dicom, write_png

ROOT = Path(__file__).parents[1]
ADDRESS = "127.0.0.1:8000"
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
REQUESTS = [
    line.partition("  #")[0].strip()
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.splitlines()
    if line.startswith(("curl", "lungseg segment")) and "https://" not in line
]
PROGRAMS = [block for kind, block in BLOCKS if kind == "python" and ADDRESS in block]


@pytest.fixture(scope="module")
def shipped() -> Iterator[Running]:
    """The service with the model that the repository ships."""
    with running(ROOT / "models", model="lung-unet") as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the files that the examples name."""
    phantom = make_phantom(seed=2)
    write_png(phantom, tmp_path / "slice.png")
    for name in ("slice.dcm", "a.dcm", "b.dcm"):
        write_dicom(phantom, tmp_path / name)
    (tmp_path / "slices").mkdir()
    shutil.copy(tmp_path / "slice.dcm", tmp_path / "slices")
    with zipfile.ZipFile(tmp_path / "slices.zip", "w") as archive:
        archive.write(tmp_path / "slice.dcm", "slice.dcm")
    return tmp_path


def _run(command: list[str], folder: Path) -> str:
    binaries = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        "PATH": binaries,
        "PYTHONPATH": str(ROOT),
        "LUNGSEG_MODELS_DIR": str(ROOT / "models"),
        "HOME": str(folder),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_are_found() -> None:
    """An edit of the README that hides its examples from these tests fails here."""
    assert len(REQUESTS) >= 6
    assert len(PROGRAMS) == 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("request_line", REQUESTS)
def test_a_request_of_the_readme_succeeds(
    request_line: str, shipped: Running, folder: Path
) -> None:
    """Run by a shell, in a folder with the files it names, at the address of this service."""
    line = request_line.replace(ADDRESS, f"127.0.0.1:{shipped.port}")
    line = re.sub(r"^curl ", "curl --fail-with-body ", line)
    shown = _run(["bash", "-c", line], folder)
    if target := re.search(r"(?:-o |> )(\S+\.(?:png|zip))", line):
        content = (folder / target[1]).read_bytes()
        assert content.startswith((b"\x89PNG", b"PK"))
    elif line.startswith("curl"):
        assert json.loads(shown or "{}") is not None


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_readme_runs(program: str, shipped: Running, folder: Path) -> None:
    script = program.replace(ADDRESS, f"127.0.0.1:{shipped.port}")
    _run([sys.executable, "-c", script], folder)


def test_the_shipped_model_finds_the_phantoms_lungs(shipped: Running, folder: Path) -> None:
    """Not a measure of quality, which the card gives, but proof of the whole path."""
    answer = shipped.client.post("/segment?format=png", content=(folder / "slice.dcm").read_bytes())
    mask = np.asarray(Image.open(io.BytesIO(answer.content))) > 0
    truth = make_phantom(seed=2).lungs
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.95
