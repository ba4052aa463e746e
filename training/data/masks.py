"""What the values of a mask's file mean: lung, ignored, or what has to be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from training.errors import DataError

LABELS = 32
"""Masks of whole numbers below this hold labels (lungs, lobes), not grey: any label is lung."""
IGNORED, LUNG = 128, 255
"""Of a mask of three values: what nobody can tell, which neither trains nor counts, and lung."""
FEW_VALUES = 16
"""Grey edges of a picture that was resized have more values, or none that fills an area."""
CLEARLY_BETWEEN = (0.05, 0.95)
"""Of the greatest value: what lossy or soft masks of many values do not fill an area with."""
SHOWN = 6
"""Values named in an error."""


def lung_and_ignored(values: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tells lung and what is ignored from a mask's values.

    A mask of labels is lung wherever it is not 0; of a grey mask, what lies above the middle of
    its range is. In a mask of no other values than 0, 128 and 255, what is 128 is ignored.

    Args:
        values: of the file, shape (Y, X).

    Returns:
        Two bool planes of the same shape: lung, ignored.

    Raises:
        DataError: values below 0, or areas of several values that are no labels: which of them
            is lung can't be told.
    """
    nothing = np.zeros(values.shape, bool)
    levels = np.unique(values)
    highest = float(levels[-1])
    if levels[0] < 0:
        raise DataError(f"expected a mask of values from 0, found {levels[0]:g}; is it a slice?")
    if IGNORED in levels and np.isin(levels, (0, IGNORED, LUNG)).all():
        return np.asarray(values == LUNG), np.asarray(values == IGNORED)
    if highest < LABELS and bool((levels == np.rint(levels)).all()):
        return np.asarray(values > 0), nothing
    found = _filled_between(values, levels)
    if found:
        named = ", ".join(f"{level:g}" for level in [*found[:SHOWN], highest])
        raise DataError(
            f"expected lung of one value, found areas of the values {named}, and which of them is "
            "lung can't be told; write lung as 255, what is ignored as 128 and all else as 0"
        )
    return np.asarray(values > highest / 2), nothing


def read_one_colour(path: Path) -> NDArray[np.float32]:
    """A mask that is drawn in a colour on black, as grey levels.

    Raises:
        DataError: it has several colours.
    """
    with Image.open(path) as picture:
        planes = np.asarray(picture.convert("RGB"), np.float32)
    used = planes[..., planes.any(axis=(0, 1))]
    if (used == used[..., :1]).all():  # pure red and the like, perhaps with soft edges
        return used[..., 0] * np.float32(LUNG / max(1.0, float(used.max(initial=0))))
    drawn = planes.any(axis=-1)
    colours = np.unique(planes[drawn], axis=0)
    if len(colours) > 1:
        raise DataError(
            f"expected a mask of one colour on black, found {len(colours)} colours; write lung "
            "as 255 and all else as 0"
        )
    return np.where(drawn, np.float32(LUNG), np.float32(0))


def _filled_between(values: NDArray[Any], levels: NDArray[Any]) -> list[float]:
    """Values between 0 and the greatest that fill an area, where edges are a pixel wide."""
    few = len(levels) <= FEW_VALUES
    low, high = (float(share * levels[-1]) for share in (CLEARLY_BETWEEN if not few else (0, 1)))
    side = 3 if few else 5
    least, most = (
        np.asarray(rank(values, size=side, mode="nearest"))
        for rank in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    inner = (least == most) & (values > low) & (values < high)
    return np.unique(values[inner]).tolist()
