"""``python -m training label``: masks for CT without any, proposed and then decided."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_label_command(commands: Any) -> None:
    """Adds the command to the parser."""
    label = commands.add_parser("label", help="propose masks for CT without, apply decisions")
    label.add_argument("series", nargs="+", type=Path, metavar="SERIES", help="folders of DICOM")
    label.add_argument("--out", type=Path, required=True, help="folder for masks and sheets")
    label.add_argument(
        "--decisions", type=Path, metavar="DIR", help="folder of NAME.toml, one a folder of slices"
    )
    label.set_defaults(command=run_label)


def run_label(options: argparse.Namespace) -> None:
    """Runs the command."""
    from training.labelling.label import label

    label(options.series, options.out, options.decisions)
