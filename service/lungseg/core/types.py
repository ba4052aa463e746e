"""The frozen values that flow one way through the pipeline.

``bytes → Scan → ModelInput → probabilities → Segmentation → Report → bytes``

Arrays have axes ``(Z, Y, X)`` = (slice, row, column); one slice is a scan with Z = 1. Patient
coordinates are DICOM's: x to the patient's left, y to the back, z to the head, in mm
(LPS, PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Unit = Literal["HU", "grey level"]
Laterality = Literal["dicom_orientation", "radiological_convention"]
FloatArray = NDArray[np.float32]
BoolArray = NDArray[np.bool_]
LabelArray = NDArray[np.uint8]
Element = TypeVar("Element", bound=np.generic)
IntensityArray = NDArray[np.float32] | NDArray[np.int16]

AIR_HU = -1000.0
"""Hounsfield units of air, by definition of the scale."""
FILL_HU = -1500.0
"""No noise reaches so far below air: scanners write this and less outside their field of view."""
LOSSY = "lossy_compression"
"""Note of a scan whose values were changed to save space."""
RIGHT, LEFT, UNSIDED = 1, 2, 3
"""Labels of the patient's right lung, the left lung, and lung of a slice that shows no sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """Patient directions of a slice's axes, unit vectors: Image Orientation (Patient) of DICOM."""

    row_direction: tuple[float, float, float]
    """Direction in which the column index grows."""
    column_direction: tuple[float, float, float]
    """Direction in which the row index grows."""

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slice, row direction × column direction."""
        (a, b, c), (d, e, f) = self.row_direction, self.column_direction
        across = b * f - c * e, c * d - a * f, a * e - b * d
        return np.array(across) / math.hypot(*across)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What the values of a file can say, in its unit: neither beyond the ends nor any finer."""

    low: float
    """A value at or below this may have been any lower one."""
    high: float
    """A value at or above this may have been any higher one."""
    step: float = 0.0
    """Distance between neighbouring levels; 0 where it is finer than matters, or unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Measured intensities and what is known of their geometry, in the order of the file."""

    values: IntensityArray
    """float32 or int16, shape (Z, Y, X), in ``unit``: HU when calibrated."""
    unit: Unit
    media_type: str
    """What the bytes were, for example ``application/dicom``."""
    spacing_mm: tuple[float, float] | None = None
    """Distance between (rows, columns); like all geometry None when unknown."""
    orientation: Orientation | None = None
    positions_mm: NDArray[np.float64] | None = None
    """Patient position of each slice's first pixel, shape (Z, 3). Slices may be missing, and a
    tilted gantry shears the stack."""
    white: float | None = None
    """The grey level of white where the encoding fixes it (255, 65535)."""
    reach: Reach | None = None
    """What the encoding can hold, where that is known; values may have been clipped before."""
    padding: BoolArray | None = None
    """True where the file says that nothing was measured, shape (Z, Y, X); None = nowhere. Such
    values are air's in HU, and the darkest of the slice else."""
    notes: tuple[str, ...] = ()
    """Codes of what a reader had to accept against its better judgement (``not_ct``)."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of one slice in pixels."""
        return self.values.shape[1], self.values.shape[2]

    @property
    def step_mm(self) -> NDArray[np.float64] | None:
        """Vector from one slice to the next, the mean over the stack; None where unknown."""
        if self.positions_mm is None or len(self.positions_mm) < 2:
            return None
        step = (self.positions_mm[-1] - self.positions_mm[0]) / (len(self.positions_mm) - 1)
        return step if 0 < np.linalg.norm(step) < np.inf else None

    @property
    def affine(self) -> NDArray[np.float64] | None:
        """Matrix (4, 4) from (slice, row, column, 1) to patient mm, None where it is unknown.

        One slice has no step to the next: the unit vector across it stands in its place.
        """
        if self.spacing_mm is None or self.orientation is None or self.positions_mm is None:
            return None
        step = self.step_mm
        matrix = np.eye(4)
        matrix[:3, 0] = self.orientation.normal if step is None else step
        matrix[:3, 1] = np.multiply(self.orientation.column_direction, self.spacing_mm[0])
        matrix[:3, 2] = np.multiply(self.orientation.row_direction, self.spacing_mm[1])
        matrix[:3, 3] = self.positions_mm[0]
        return matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The usual view of a scan: axes permuted and flipped, nothing resampled."""

    order: tuple[int, int, int] = (0, 1, 2)
    """Which axis of the scan each axis of the view is."""
    flipped: tuple[bool, bool, bool] = (False, False, False)
    """Which axes of the view run against the scan's."""
    laterality: Laterality | None = None
    """How it is known that columns run from the patient's right to the left; None where no axis
    of a slice does (sagittal slices)."""

    def apply(self, array: NDArray[Element]) -> NDArray[Element]:
        """The view of an array of the scan's shape (Z, Y, X), without a copy."""
        return array.transpose(self.order)[self._steps]

    def undo(self, array: NDArray[Element]) -> NDArray[Element]:
        """Undoes ``apply``: an array of the view's shape in the scan's own order."""
        back = sorted(range(3), key=self.order.__getitem__)
        return array[self._steps].transpose(back)

    @property
    def _steps(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where slices of the usual view lie on the network's grid; sizes are (height, width)."""

    source_size: tuple[int, int]
    """Of a slice of the view."""
    grid_size: tuple[int, int]
    """Of the network's input."""
    offset: tuple[int, int]
    """(row, column) of the slice's top left corner on the grid."""
    inner_size: tuple[int, int]
    """Of the slice, or of its part, on the grid."""
    part: tuple[int, int, int, int] | None = None
    """(first row, first column, height, width) of the slice that the grid covers, None for all
    of it; there is no lung outside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """What the network sees, and how to get back to the slices' own size."""

    grey: FloatArray
    """float32 in [0, 255], shape (slices of the view, grid height, grid width, 1)."""
    placement: Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """How sure the network was; the first two are None for an empty mask."""

    mean_probability: float | None
    uncertain_fraction: float | None
    max_probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """The lungs of a scan, on its own grid; made once and read by everything that follows."""

    labels: LabelArray
    """uint8, shape (Z, Y, X): 0, or ``RIGHT``, ``LEFT``, ``UNSIDED``."""
    threshold: float
    """Lung is where the probability is at least this."""
    laterality: Laterality | None
    """How sides are known, None where the scan shows none or they cannot be told."""
    components: tuple[int, int, int] | None
    """8-connected regions (in all, right, left) of a single slice."""
    confidence: Confidence
    probability: FloatArray
    """float32 in [0, 1], shape (1, Y, X), of a single slice; a volume's would be larger than the
    volume itself and is not kept: shape (0, Y, X)."""

    @property
    def mask(self) -> BoolArray:
        """True = lung, shape (Z, Y, X)."""
        return self.labels > 0
