"""Trachea and main bronchi: grown from round dark blobs that soft tissue surrounds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.labelling.body import core_median
from training.labelling.shapes import Mask, Spacing, dilated, opened, regions, touching
from training.labelling.stacks import Stack

SEED_HU = (-700, -800, -850, -900, -930)
"""Thresholds that are tried for blobs: strict ones part an airway from the lung beside it."""
LUMEN_HU = -880
"""Median of a blob's middle at most, blurred by thick slices; lung that looks round is brighter."""
AREA_MM2 = (40.0, 700.0)
"""Of a cut through the trachea or a main bronchus, and through both at the carina."""
LEAST_FILL = 0.5
"""Share of its bounding box that a blob fills; a circle fills 0.785."""
MOST_OBLONG = 2.5
"""How much longer than wide a blob may be."""
RING_MM = (1.0, 4.0)
"""Where the wall and what lies around it are looked for, from the edge of a blob."""
RING_HU = -300
"""Walls are blurred into the air, but brighter than this."""
LEAST_RING = 0.55
"""Share of the ring that is soft tissue: the right lung lies against the trachea."""
FROM_MIDDLE_MM = 50.0
"""How far from the middle of the body airways lie outside the lungs."""
CHAIN_MM = 25.0
"""Blobs that lie on each other over this length are a trachea; bowel bends away before."""
GROW_HU = tuple(range(-950, -600, 25))
"""Thresholds of growing, strict to wide."""
LEAK_ML = 12.0
"""Growth in one step that has broken into a lung."""
LOBAR_MM = 3.0
"""Radius below which branches lie in the lungs and are lung."""
WALL_MM = 2.0
"""Width of the wall with its blur."""


def find_airways(stack: Stack, calm: NDArray[np.int16], body: Mask, air: Mask) -> Mask:
    """Proposes trachea and main bronchi.

    Args:
        stack: the slices.
        calm: their smoothed HU, int16, shape (Z, Y, X).
        body: the body with what it encloses.
        air: what is dark in it.

    Returns:
        bool, shape (Z, Y, X), a subset of ``air``.
    """
    spacing = stack.spacing_mm[1:]
    lumen = np.stack(
        [_blobs(plane, within, spacing) for plane, within in zip(calm, body, strict=True)]
    )
    if stack.is_volume:
        lumen = _grow(stack, calm, air, _longest_chain(stack, lumen))
    walled = [dilated(plane, WALL_MM, spacing) for plane in lumen]
    return np.stack(walled) & air


def _blobs(plane: NDArray[np.int16], body: Mask, spacing_mm: Spacing) -> Mask:
    """Round dark regions near the middle of the body with soft tissue around them."""
    found = np.zeros_like(body)
    columns = np.flatnonzero(body.any(axis=0))
    if not columns.size:
        return found
    middle = (columns[0] + columns[-1] + 1) / 2
    margins = [int(RING_MM[1] / step) + 2 for step in spacing_mm]
    for threshold in SEED_HU:
        labels, sizes = regions(body & (plane < threshold))
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            centre = (box[1].start + box[1].stop) / 2
            if abs(centre - middle) * spacing_mm[1] > FROM_MIDDLE_MM:
                continue
            if not _is_round(box, int(sizes[number]), spacing_mm):
                continue
            wide = tuple(
                slice(max(0, part.start - margin), part.stop + margin)
                for part, margin in zip(box, margins, strict=True)
            )
            region = labels[wide] == number
            if core_median(region, plane[wide], spacing_mm) > LUMEN_HU:
                continue
            ring = dilated(region, RING_MM[1], spacing_mm) & ~dilated(
                region, RING_MM[0], spacing_mm
            )
            if (plane[wide][ring] > RING_HU).mean() >= LEAST_RING:
                found[wide] |= region
    return found


def _is_round(box: tuple[slice, slice], pixels: int, spacing_mm: Spacing) -> bool:
    height, width = (
        (part.stop - part.start) * step for part, step in zip(box, spacing_mm, strict=True)
    )
    area = pixels * spacing_mm[0] * spacing_mm[1]
    return (
        AREA_MM2[0] <= area <= AREA_MM2[1]
        and area >= LEAST_FILL * height * width
        and max(height, width) <= MOST_OBLONG * min(height, width)
    )


def _longest_chain(stack: Stack, blobs: Mask) -> Mask:
    """The blobs on top of each other over the greatest length, none if that is short."""
    labels, _ = regions(blobs, corners=False)
    lengths = [box[0].stop - box[0].start for box in ndimage.find_objects(labels)]
    if max(lengths, default=0) * stack.spacing_mm[0] < CHAIN_MM:
        return np.zeros_like(blobs)
    return labels == 1 + int(np.argmax(lengths))


def _grow(stack: Stack, calm: NDArray[np.int16], air: Mask, chain: Mask) -> Mask:
    """Grows the chain down into the bronchi, threshold by threshold until it leaks."""
    if not chain.any():
        return chain
    top = int(np.flatnonzero(chain.any(axis=(1, 2)))[-1]) + 1
    allowed = air.copy()
    allowed[top:] = False  # what lies above is larynx and mouth
    voxel_ml = float(np.prod(stack.spacing_mm)) / 1000
    grown = chain
    for threshold in GROW_HU:
        wider = touching(allowed & ((calm < threshold) | chain), chain)
        if threshold > GROW_HU[0] and (wider.sum() - grown.sum()) * voxel_ml > LEAK_ML:
            break
        grown = wider
    spacing = stack.spacing_mm[1:]
    thick = np.stack([opened(plane, LOBAR_MM, spacing) for plane in grown]) | chain
    return touching(thick, chain)
