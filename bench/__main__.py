"""``python -m bench [slices|volumes|page|load|screenshots] [--models DIR] [--model NAME]``."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import page, screenshots, slices, storm, volumes

WHAT = ("slices", "volumes", "page", "load", "screenshots")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=WHAT, help="slices and volumes if none")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="lung-unet")
    parser.add_argument("--seconds", type=float, default=None, help="of each turn")
    chosen = parser.parse_args()
    if not (chosen.models / chosen.model).is_dir():
        raise SystemExit(f"expected a model in {chosen.models / chosen.model}, found none")
    if chosen.what == "load":
        storm.run(chosen.models, chosen.model, chosen.seconds or 60.0)
    if chosen.what == "page":
        page.run(chosen.models, chosen.model)
    if chosen.what == "screenshots":
        screenshots.run(chosen.models, chosen.model)
    if chosen.what in (None, "slices"):
        slices.run(chosen.models, chosen.model, chosen.seconds or 2.0)
    if chosen.what in (None, "volumes"):
        volumes.run(chosen.models, chosen.model)


if __name__ == "__main__":
    main()
