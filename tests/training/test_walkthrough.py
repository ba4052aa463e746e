"""README's "Retrain on your own data" runs as it is written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.training

ROOT = Path(__file__).parents[2]


def test_the_walkthrough_runs_as_written(tmp_path: Path) -> None:
    """Every command of the section, in order, in a folder that sees this code."""
    text = (ROOT / "README.md").read_text().partition("## Retrain on your own data")[2]
    section = text.partition("\n## ")[0]
    script = "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
    assert script.count("python -m training") >= 5
    for package in ("training",):
        (tmp_path / package).symlink_to(ROOT / package)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    assert (tmp_path / "data" / "sheet.png").exists()
    assert (tmp_path / "runs" / "my-lung" / "evaluation" / "report.html").exists()
    for name in ("my-lung", "my-lung-tuned"):
        for file in ("model.onnx", "contract.json", "golden.npz", "CARD.md"):
            assert (tmp_path / "models" / name / "1" / file).stat().st_size
