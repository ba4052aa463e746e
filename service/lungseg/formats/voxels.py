"""The values of a volume while its planes come, one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.core.types import BoolArray, IntensityArray


class Voxels:
    """Values of all planes, int16 as long as all are whole numbers that fit, else float32.

    Attributes:
        values: shape (Z, Y, X); planes that have not come hold anything.
        unmeasured: where nothing was measured, of the same shape; None where all was.
    """

    def __init__(self, size: tuple[int, int, int]) -> None:
        self.values: IntensityArray = np.empty(size, np.int16)
        self.unmeasured: BoolArray | None = None

    def put(self, index: int, plane: NDArray[Any], unmeasured: BoolArray | None) -> None:
        """Adds the next plane, int16 or float32, and where nothing was measured in it."""
        if plane.dtype == np.float32 and self.values.dtype == np.int16:
            wider = np.empty(self.values.shape, np.float32)
            wider[:index] = self.values[:index]
            self.values = wider
        self.values[index] = plane
        if unmeasured is not None:
            if self.unmeasured is None:
                self.unmeasured = np.zeros(self.values.shape, bool)
            self.unmeasured[index] = unmeasured
