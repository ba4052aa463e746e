"""Where a DICOM image lies: spacing, directions and position, as far as they are sound."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from lungseg.core.types import Orientation
from lungseg.formats.dicom_attributes import floats

UNIT_TOLERANCE = 1e-2
"""How far direction cosines may be from unit length and from a right angle."""
PLAUSIBLE_SPACING_MM = (0.01, 20.0)
"""Pixel spacings beyond are mistakes of the header."""


def spacing_of(dataset: FileDataset) -> tuple[float, float] | None:
    """(row, column) spacing in mm, None where it is missing or no pixel's."""
    values = floats(dataset, "PixelMeasuresSequence", "PixelSpacing", 2)
    low, high = PLAUSIBLE_SPACING_MM
    if values is None or not low <= min(values) <= max(values) <= high:
        return None
    return values[0], values[1]


def orientation_of(dataset: FileDataset) -> Orientation | None:
    """Direction cosines, None when they are missing or not two orthogonal unit vectors."""
    values = floats(dataset, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
    if values is None:
        return None
    row, column = np.array(values[:3]), np.array(values[3:])
    lengths = abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1)
    if max(*lengths, abs(float(row @ column))) > UNIT_TOLERANCE:
        return None
    return Orientation(
        row_direction=(values[0], values[1], values[2]),
        column_direction=(values[3], values[4], values[5]),
    )


def position_of(dataset: FileDataset) -> NDArray[np.float64] | None:
    """Patient position of the first pixel in mm, shape (1, 3); None when it is missing."""
    values = floats(dataset, "PlanePositionSequence", "ImagePositionPatient", 3)
    return None if values is None else np.array([values])
