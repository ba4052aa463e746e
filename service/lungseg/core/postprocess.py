"""From probabilities on the network's grid to a mask of the slices' own size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungseg.core.regions import keep_largest
from lungseg.core.resample import resample
from lungseg.core.types import BoolArray, Confidence, FloatArray, Placement

UNCERTAIN_PROBABILITY = (0.1, 0.9)
"""Probabilities within, ends included, are neither clearly lung nor clearly not."""


def restore(output: FloatArray, placement: Placement) -> FloatArray:
    """Undoes ``fit``: brings the network's probabilities back to the size of the view's slices.

    Args:
        output: float32, shape (slices, output height, output width, 1). Its grid may be coarser
            than the input's (a network of half resolution); both cover the same field.
        placement: what ``fit`` returned.

    Returns:
        float32 in [0, 1], shape (slices, height, width) of the view.
    """
    top, left = placement.offset
    height, width = placement.inner_size
    row, column, *size = placement.part or (0, 0, *placement.source_size)
    whole = np.zeros((len(output), *placement.source_size), np.float32)
    for index, plane in enumerate(output[..., 0]):
        inner = plane
        # Padding may end between two cells of a coarser output grid, so such a grid is first
        # brought to the input grid's resolution. A full-grid slice (the usual case) needs no crop.
        if placement.inner_size != placement.grid_size:
            inner = resample(plane, placement.grid_size)[top : top + height, left : left + width]
        part = whole[index, row : row + size[0], column : column + size[1]]
        part[...] = resample(inner, (size[0], size[1]))
    return whole


def cut(probability: FloatArray, *, threshold: float, largest_components: int) -> BoolArray:
    """Cuts probabilities into a mask.

    Args:
        probability: float32, shape (Z, Y, X).
        threshold: lung is where the probability is at least this.
        largest_components: how many 8-connected regions to keep in each slice, 0 = all.
    """
    mask = probability >= np.float32(threshold)
    if largest_components:
        mask = np.stack([keep_largest(plane, largest_components) for plane in mask])
    return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Certainty:
    """What is counted of slabs of probabilities; slabs add up."""

    lung: int = 0
    """Pixels of the mask."""
    summed: float = 0.0
    """The sum of their probabilities."""
    uncertain: int = 0
    """Pixels, inside the mask or not, of uncertain probability."""
    greatest: float = 0.0
    """The greatest probability anywhere."""

    @classmethod
    def of(cls, probability: FloatArray, mask: BoolArray) -> Certainty:
        """Counts a slab; both arrays have one shape."""
        low, high = (np.float32(bound) for bound in UNCERTAIN_PROBABILITY)
        return cls(
            lung=int(np.count_nonzero(mask)),
            summed=float(probability[mask].sum(dtype=np.float64)),
            uncertain=int(np.count_nonzero(probability >= low))
            - int(np.count_nonzero(probability > high)),
            greatest=float(probability.max(initial=0.0)),
        )

    def __add__(self, other: Certainty) -> Certainty:
        return Certainty(
            lung=self.lung + other.lung,
            summed=self.summed + other.summed,
            uncertain=self.uncertain + other.uncertain,
            greatest=max(self.greatest, other.greatest),
        )

    @property
    def confidence(self) -> Confidence:
        """The figures of the answer."""
        empty = not self.lung
        return Confidence(
            mean_probability=None if empty else round(self.summed / self.lung, 6),
            uncertain_fraction=None if empty else round(self.uncertain / self.lung, 6),
            max_probability=round(self.greatest, 6),
        )
