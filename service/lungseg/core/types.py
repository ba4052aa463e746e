"""The frozen values that flow one way through the pipeline.

``bytes → Scan → ModelInput → probabilities → Mask → Report → bytes``

Arrays have axes ``(Z, Y, X)`` = (slice, row, column); one slice is a scan with Z = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Unit = Literal["HU", "grey level"]
FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]

AIR_HU = -1000.0
"""Hounsfield units of air, by definition of the scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """Patient directions of the image axes, from DICOM Image Orientation (Patient).

    Unit vectors in the patient's coordinates (x to the left, y to the back, z to the head;
    PS3.3 C.7.6.2.1.1).
    """

    row_direction: tuple[float, float, float]
    """Direction in which the column index grows."""
    column_direction: tuple[float, float, float]
    """Direction in which the row index grows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Measured intensities and what is known of their geometry.

    Attributes:
        values: float32, shape (Z, Y, X), in ``unit``.
        unit: ``HU`` when calibrated, else ``grey level``.
        media_type: what the bytes were, for example ``application/dicom``.
        spacing_mm: distance between (rows, columns) in mm, None when unknown.
        orientation: patient directions of the axes, None when unknown.
        white: the grey level of white where the encoding fixes it (255, 65535), else None.
        notes: codes of what a reader had to accept against its better judgement (``not_ct``).
    """

    values: FloatArray
    unit: Unit
    media_type: str
    spacing_mm: tuple[float, float] | None = None
    orientation: Orientation | None = None
    white: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of one slice in pixels."""
        return self.values.shape[1], self.values.shape[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a slice lies on the network's grid: what ``restore`` needs to undo ``fit``.

    Attributes:
        source_size: (height, width) of the slice.
        grid_size: (height, width) of the network's input.
        offset: (row, column) of the slice's top left corner on the grid.
        inner_size: (height, width) of the slice on the grid.
    """

    source_size: tuple[int, int]
    grid_size: tuple[int, int]
    offset: tuple[int, int]
    inner_size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """What the network sees.

    Attributes:
        grey: float32 in [0, 255], shape (Z, grid height, grid width, 1).
        placement: how to get back to the slice's own size.
    """

    grey: FloatArray
    placement: Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """A mask with the probabilities that it was cut from, both of the input's size.

    Attributes:
        mask: bool, shape (Z, Y, X), True = lung.
        probability: float32 in [0, 1], shape (Z, Y, X).
        threshold: the cut: lung is where the probability is at least this.
    """

    mask: BoolArray
    probability: FloatArray
    threshold: float
