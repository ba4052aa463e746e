"""How far each pixel of a plane lies from a mask, exactly, in NumPy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lungseg.core.types import BoolArray


def distances(mask: BoolArray) -> NDArray[np.float64]:
    """Pixels to the nearest True one of a plane, of its shape (Y, X); infinite where none is.

    First within each row, then over the rows above and below, as far as they can be nearer.
    """
    columns = np.arange(mask.shape[1], dtype=np.float64)
    before = np.maximum.accumulate(np.where(mask, columns, -np.inf), axis=1)
    behind = np.minimum.accumulate(np.where(mask, columns, np.inf)[:, ::-1], axis=1)[:, ::-1]
    along = np.square(np.minimum(columns - before, behind - columns))
    nearest = along.copy()
    for rows in range(1, len(mask)):
        if rows * rows >= nearest.max():
            break
        np.minimum(nearest[rows:], along[:-rows] + rows * rows, out=nearest[rows:])
        np.minimum(nearest[:-rows], along[rows:] + rows * rows, out=nearest[:-rows])
    return np.sqrt(nearest)
