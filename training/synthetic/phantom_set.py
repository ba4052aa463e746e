"""A data set of synthetic chest slices, for tests, walk-throughs and measurements."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from training.errors import DataError
from training.synthetic.phantom import make_phantom, write_dicom, write_png

LEVELS = (0.08, 0.92)
"""From below the apices to above the bases."""


def write_phantom_set(  # each argument is one of the command's flags
    out: Path,
    *,
    count: int,
    patients: int,
    side: int = 512,
    file_format: str = "png",
    seed: int = 0,
) -> None:
    """Writes ``images/`` and ``masks/``, slices of each patient from top to bottom.

    Args:
        out: folder to make; files of the same names are replaced.
        count: slices in all, shared out evenly.
        patients: at least 1.
        side: rows and columns of each slice.
        file_format: of the images, ``png`` (8 bit, lung window) or ``dicom`` (HU).
        seed: of all patients.

    Raises:
        DataError: fewer slices than patients, or a size that shows nothing.
    """
    if patients < 1 or count < patients:
        raise DataError(f"expected at least one slice a patient, got {count} for {patients}")
    if side < 32:
        raise DataError(f"--size: expected at least 32 pixels, got {side}")
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "masks").mkdir(exist_ok=True)
    for number in range(count):
        patient, place = number % patients, number // patients
        slices = len(range(patient, count, patients))
        level = LEVELS[0] + (LEVELS[1] - LEVELS[0]) * (place + 0.5) / slices
        phantom = make_phantom((side, side), seed=seed * 100_003 + patient, level=level)
        stem = f"patient-{patient:04d}_slice-{place:04d}"
        if file_format == "dicom":
            identity = f"PHANTOM-{patient:04d}"
            image = out / "images" / f"{stem}.dcm"
            write_dicom(phantom, image, PatientID=identity, InstanceNumber=str(place + 1))
        else:
            write_png(phantom, out / "images" / f"{stem}.png")
        mask = phantom.lungs.astype(np.uint8) * 255
        Image.fromarray(mask).save(out / "masks" / f"{stem}.png")
