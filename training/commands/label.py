"""``python -m training label``: masks for CT without any, proposed and then decided."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from training.labelling.label import label as write_labels


def register(commands: Any) -> None:
    """Adds the command to the parser."""
    label = commands.add_parser("label", help="propose masks for CT without, apply decisions")
    label.add_argument("series", nargs="+", type=Path, metavar="SERIES", help="folders of DICOM")
    label.add_argument("--out", type=Path, required=True, help="folder for masks and sheets")
    label.add_argument(
        "--decisions", type=Path, metavar="DIR", help="folder of NAME.toml, one a folder of slices"
    )
    label.add_argument(
        "--ignore-hila",
        action="store_true",
        help="masks to learn from beside sources whose lungs end elsewhere at the hila",
    )
    label.add_argument(
        "--slabs-mm",
        nargs="+",
        type=float,
        default=(),
        metavar="MM",
        help="average the slices of volumes to thick ones too, listed in masks/slabs.csv",
    )
    label.set_defaults(command=_label)


def _label(options: argparse.Namespace) -> None:
    write_labels(
        options.series,
        options.out,
        options.decisions,
        ignore_hila=options.ignore_hila,
        slabs_mm=options.slabs_mm,
    )
