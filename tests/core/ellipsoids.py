"""A chest of ellipsoids in patient coordinates, cut by any stack of planes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lungseg.core.types import LEFT, RIGHT, Confidence, Orientation, Scan, Segmentation
from lungseg.core.volume import Volume

Vector = tuple[float, float, float]
CENTRES = {RIGHT: (-70.0, 10.0, -4.0), LEFT: (68.0, 6.0, 3.0)}
"""Of the lungs in patient mm: x grows to the left, z to the head."""
RADII = {RIGHT: (52.0, 75.0, 101.0), LEFT: (45.0, 70.0, 93.0)}
BODY_RADII = (172.0, 132.0, 400.0)
LUNG_HU = {RIGHT: -860, LEFT: -840}
DEEPER_HU = 60
"""Lung below the middle is denser by this."""
ML = {side: 4 / 3 * math.pi * math.prod(RADII[side]) / 1000 for side in (RIGHT, LEFT)}
"""Of each lung, exactly."""
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
CORONAL = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
SAGITTAL = ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0))


def cut(
    distances: Sequence[float] = tuple(np.arange(-120.0, 121.0, 4.0)),
    axes: tuple[Vector, Vector] = AXIAL,
    *,
    spacing: tuple[float, float] = (3.0, 2.5),
    shear: float = 0.0,
    noise: int = 0,
    notes: tuple[str, ...] = (),
) -> tuple[Volume, Segmentation]:
    """The chest in planes at these distances along their normal, and its true lungs.

    Sheared planes move along their columns by so much for each mm, as of a tilted gantry.
    """
    row, column = np.array(axes[0]), np.array(axes[1])
    normal = np.cross(row, column)
    size = (round(340 / spacing[0]) // 2 * 2 + 1, round(360 / spacing[1]) // 2 * 2 + 1)
    corner = -row * (size[1] // 2) * spacing[1] - column * (size[0] // 2) * spacing[0]
    along = np.asarray(distances, np.float64)
    positions = corner + along[:, None] * (normal + shear * column)
    points = (
        positions[:, None, None]
        + (np.arange(size[0]) * spacing[0])[:, None, None] * column
        + (np.arange(size[1]) * spacing[1])[:, None] * row
    )
    labels = np.zeros(points.shape[:3], np.uint8)
    values = np.where(_within(points, (0, 0, 0), BODY_RADII), 40, -1000).astype(np.int16)
    for side in (RIGHT, LEFT):
        lung = _within(points, CENTRES[side], RADII[side])
        labels[lung] = side
        values[lung] = LUNG_HU[side]
        values[lung & (points[..., 2] < 0)] += DEEPER_HU
    values += np.random.default_rng(1).integers(-noise, noise + 1, values.shape, np.int16)
    scan = Scan(
        values=values,
        unit="HU",
        media_type="application/dicom",
        spacing_mm=spacing,
        orientation=Orientation(row_direction=tuple(row), column_direction=tuple(column)),
        positions_mm=positions,
        notes=notes,
    )
    return Volume(scan=scan), segmented(labels)


def segmented(labels: np.ndarray, *, sided: bool = True) -> Segmentation:
    """Labels as a pipeline hands them out."""
    return Segmentation(
        labels=labels,
        threshold=0.5,
        laterality="dicom_orientation" if sided else None,
        components=None,
        confidence=Confidence(mean_probability=0.98, uncertain_fraction=0.01, max_probability=1.0),
        probability=np.zeros((0, *labels.shape[1:]), np.float32),
    )


def _within(points: np.ndarray, centre: Vector, radii: Vector) -> np.ndarray:
    return (((points - centre) / radii) ** 2).sum(axis=-1) <= 1
