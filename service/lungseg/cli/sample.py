"""``lungseg sample``: where the sample slice that comes with the package lies."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from lungseg.cli.errors import OK
from lungseg.packaged import SAMPLE_CITATION, sample_slice


def add_to(commands: Any) -> None:
    """Adds the command."""
    text = "print the path of a real chest CT slice that may be shown"
    commands.add_parser("sample", help=text, description=text).set_defaults(run=_run)


def _run(_options: argparse.Namespace) -> int:
    print(sample_slice())
    print(SAMPLE_CITATION, file=sys.stderr)
    return OK
