"""``docs/own-model.md``: its program makes a bundle, which the service takes and uses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lungseg.inference.model import BUNDLE_FILES
from training.synthetic.phantom import make_phantom, write_png

PAGE = (Path(__file__).parents[2] / "docs" / "own-model.md").read_text(encoding="utf-8")
PROGRAM, COMMANDS = (
    re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL) for kind in ("python", "sh")
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in which the page's program has run, beside a slice."""
    subprocess.run([sys.executable, "-c", *PROGRAM], cwd=tmp_path, check=True)
    write_png(make_phantom(seed=2), tmp_path / "slice.png")
    return tmp_path


def _command(folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-ec", *COMMANDS],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_pages_bundle_segments_a_slice(folder: Path) -> None:
    """The bundle has the four files, and the command line draws with it."""
    bundle = folder / "models" / "my-net" / "1"
    assert {file.name for file in bundle.iterdir()} == set(BUNDLE_FILES)
    done = _command(folder)
    assert done.returncode == 0, done.stderr
    with Image.open(folder / "seen.png") as seen:
        assert seen.mode == "RGB"


def test_a_changed_graph_is_refused_with_the_pages_reason(folder: Path) -> None:
    """Naming the version makes the refusal say why, as the page promises."""
    graph = folder / "models" / "my-net" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\x00")
    done = _command(folder)
    assert done.returncode == 2
    assert "SHA-256" in done.stderr
