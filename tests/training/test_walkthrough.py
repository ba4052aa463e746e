"""``docs/retraining.md`` runs as it is written."""

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
    """Every ``sh`` block of the page, in order, in a folder that sees this code."""
    page = (ROOT / "docs" / "retraining.md").read_text()
    script = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    assert script.count("python -m training") >= 7
    (tmp_path / "training").symlink_to(ROOT / "training")
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
