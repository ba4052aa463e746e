"""``docs/retraining.md`` runs as it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from training.__main__ import main

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.training

ROOT = Path(__file__).parents[2]
PYTHON = ["python", "-m", "training"]


def test_the_walkthrough_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every ``sh`` block of the page, in order: each line is a command that ends well.

    In this process, for TensorFlow takes seconds to import; ``test_fit`` starts one of its own.
    """
    page = (ROOT / "docs" / "retraining.md").read_text()
    script = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in script.splitlines() if line]
    assert len(lines) >= 7
    (tmp_path / "training").symlink_to(ROOT / "training")
    monkeypatch.chdir(tmp_path)
    for line in lines:
        assert line[:3] == PYTHON
        assert main(line[3:]) == 0, capsys.readouterr().err
    assert (tmp_path / "data" / "sheet.png").exists()
    assert (tmp_path / "runs" / "my-lung" / "evaluation" / "report.html").exists()
    for name in ("my-lung", "my-lung-tuned"):
        for file in ("model.onnx", "contract.json", "golden.npz", "CARD.md"):
            assert (tmp_path / "models" / name / "1" / file).stat().st_size
