"""Studies of synthetic slices in folders, as people keep them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.volume.series import AIR_HU, SLICES, STEP_MM, TISSUE_HU, instances, stack
from tests.volume.series import SPACING_MM as PIXEL_MM

__all__ = ["SLICES", "SPACING_MM", "instances_of", "study"]
SPACING_MM = (STEP_MM, *PIXEL_MM)
_GIVEN = stack()
# For the stand-in what is dark is lung, and the air around the body shall be none.
_GIVEN = replace(_GIVEN, hu=np.where(_GIVEN.hu == AIR_HU, TISSUE_HU, _GIVEN.hu).astype(np.int16))


def instances_of(uid: str | None) -> list[bytes]:
    """The slices of a study of that UID, or of one that says none, shuffled."""
    return instances(_GIVEN, StudyInstanceUID=uid, SeriesInstanceUID=f"{uid or 1}.1")


def study(folder: Path, uid: str = "1.2.3") -> Path:
    """A folder with slices in two folders, a text and a hidden file."""
    for number, content in enumerate(instances_of(uid)):
        place = folder / ("a" if number % 2 else "b") / f"{number}.dcm"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    (folder / "notes.txt").write_text("no slice")
    (folder / ".hidden").write_bytes(b"x")
    return folder
