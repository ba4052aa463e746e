"""The OpenAPI document against the service, by schemathesis: no failure of any check."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.serving import Running

EXAMPLES = 20
"""For each operation and phase."""
CONFIGURATION = """
[[operations]]
include-path = "/segment/batch"
# A part of a form is bytes whatever it is meant to be: a number among files is a file of digits.
checks.negative_data_rejection.enabled = false
"""


def test_every_operation_keeps_its_word(service: Running, tmp_path: Path) -> None:
    # Its command line: its pytest plugin does not run under pytest 9. Not checked is that any
    # body which fits the document is accepted: any bytes do, and hardly any are a CT slice.
    options = f"--max-examples {EXAMPLES} --seed 1 --no-color"
    checks = "--exclude-checks positive_data_acceptance"
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    arguments = ["run", *options.split(), *checks.split(), f"{service.url}/openapi.json"]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,  # it leaves a folder of its own
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
