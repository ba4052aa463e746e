"""From probabilities on the network's grid to a mask of the input's size."""

from __future__ import annotations

import numpy as np

from lungseg.core.preprocess import resample
from lungseg.core.regions import keep_largest
from lungseg.core.types import FloatArray, Placement, Segmentation


def restore(output: FloatArray, placement: Placement) -> FloatArray:
    """Undoes ``fit``: brings the network's probabilities back to the input's size.

    The output grid may be coarser than the input grid (a network that predicts at half
    resolution); both cover the same field.

    Args:
        output: float32, shape (Z, output height, output width, 1).
        placement: what ``fit`` returned.

    Returns:
        float32 in [0, 1], shape (Z, Y, X) of the input.
    """
    planes = [_restore_plane(plane[:, :, 0], placement) for plane in output]
    return np.stack(planes)


def _restore_plane(plane: FloatArray, placement: Placement) -> FloatArray:
    # Padding may end between two cells of a coarser output grid, so such a grid is first
    # brought to the input grid's resolution. A full-grid slice (the usual case) needs no crop.
    if placement.inner_size != placement.grid_size:
        top, left = placement.offset
        height, width = placement.inner_size
        plane = resample(plane, placement.grid_size)[top : top + height, left : left + width]
    return resample(plane, placement.source_size)


def segment(probability: FloatArray, *, threshold: float, largest_components: int) -> Segmentation:
    """Cuts probabilities into a mask.

    Args:
        probability: float32, shape (Z, Y, X).
        threshold: lung is where the probability is at least this.
        largest_components: how many 8-connected regions to keep in each slice, 0 = all.
    """
    mask = probability >= np.float32(threshold)
    if largest_components:
        mask = np.stack([keep_largest(plane, largest_components) for plane in mask])
    return Segmentation(mask=mask, probability=probability, threshold=threshold)
