"""Masks of three values, from what is proposed and what was decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.labelling.decisions import EMPTY, REJECT, Decision, Polygon
from training.labelling.propose import Proposal
from training.labelling.shapes import Mask, Spacing, closed, dilated, inside_polygon, regions

NOT_LUNG, IGNORE, LUNG = 0, 128, 255
"""Values of a mask; what is ignored neither trains nor counts."""
TINY_MM2, VESSEL_MM2, TUMOUR_MM2 = 30.0, 300.0, 3000.0
"""Largest hole of a lung that is filled whatever lies below it, where nothing is known of what
lies below, and where lung does: above tissue, or alone, a hole may be the dome of the liver."""
VESSEL_MM = 4.0
"""Half the width of crevices that are closed however long they are: vessels and fissures."""
HILUM_MM, BAY_MM2 = 8.0, 200.0
"""Half the width and the area of bays that are closed; larger ones are mediastinum or tumour."""
HILA_MM, LEAST_LUNG_MM2 = 15.0, 2000.0
"""Half the width of bays that another convention might call lung, in lungs of that area."""
DOME_SHARE = 0.75
"""Share of a hole and its rim that lies on what isn't lung one slice below, where it is a dome:
domes grow wider by more than the step between slices, vessels and tumours don't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceMask:
    """The result for one slice.

    Attributes:
        mask: ``NOT_LUNG``, ``IGNORE`` or ``LUNG``, uint8, shape (Y, X).
        airway: trachea and main bronchi, bool, shape (Y, X).
    """

    mask: NDArray[np.uint8]
    airway: Mask


def make_masks(proposal: Proposal, decisions: Sequence[Decision]) -> list[SliceMask]:
    """Makes the masks of a stack.

    Args:
        proposal: what was proposed.
        decisions: one for each slice of the stack, in its order.

    Returns:
        One result for each slice, in the same order.
    """
    results: list[SliceMask] = []
    below: Mask | None = None
    for index, decision in enumerate(decisions):
        lung, airway = _aerated(proposal, index, decision)
        lung = _without_gaps(lung, airway, below, proposal.stack.spacing_mm)
        lung &= ~_inside(decision.not_lung, lung)
        lung |= _inside(decision.lung, lung)
        mask = np.where(lung, LUNG, NOT_LUNG).astype(np.uint8)
        mask[_inside(decision.ignore, lung)] = IGNORE
        if decision.verdict == REJECT:
            mask[:] = IGNORE
        results.append(SliceMask(mask=mask, airway=airway & ~lung))
        below = lung
    return results


def without_hila(result: SliceMask, spacing_mm: Spacing) -> SliceMask:
    """Ignores what a wide closing adds to a lung: where hila end is a convention.

    Args:
        result: masks of a slice.
        spacing_mm: of its pixels.

    Returns:
        The masks with the bays of large lungs ignored, but for airways and what lies by them.
    """
    labels, sizes = regions(result.mask == LUNG)
    bays = np.zeros_like(result.airway)
    large = np.flatnonzero(sizes * spacing_mm[0] * spacing_mm[1] >= LEAST_LUNG_MM2)
    for number in np.setdiff1d(large, [0]).tolist():
        bays |= closed(labels == number, HILA_MM, spacing_mm)
    bays &= (result.mask == NOT_LUNG) & ~dilated(result.airway, max(spacing_mm), spacing_mm)
    return SliceMask(
        mask=np.where(bays, np.uint8(IGNORE), result.mask).astype(np.uint8), airway=result.airway
    )


def _aerated(proposal: Proposal, index: int, decision: Decision) -> tuple[Mask, Mask]:
    """The components that are lung, and the airways."""
    if decision.verdict == EMPTY:
        nothing = np.zeros_like(proposal.airway[index])
        return nothing, nothing
    numbers = (proposal.proposed_lung() | set(decision.keep)) - set(decision.drop)
    lung = np.isin(proposal.numbers[index], sorted(numbers))
    mistaken = proposal.airway[index] & _inside(decision.not_airway, lung)
    drawn = _inside(decision.airway, lung) & proposal.air[index]
    return (lung | mistaken) & ~drawn, (proposal.airway[index] & ~mistaken) | drawn


def _without_gaps(
    lung: Mask, airway: Mask, below: Mask | None, spacing_mm: tuple[float, float, float]
) -> Mask:
    """Fills vessels and nodules, and closes the bays where vessels enter, lung by lung."""
    step, *pixel = spacing_mm
    in_plane = (pixel[0], pixel[1])
    labels, sizes = regions(lung)
    result = lung.copy()
    for number in range(1, len(sizes)):
        region = labels == number
        crevices = closed(region, VESSEL_MM, in_plane)
        bays = closed(region, HILUM_MM, in_plane) & ~crevices
        result |= (crevices | _small(bays, BAY_MM2, in_plane)) & ~airway
    labels, sizes = regions(~result, corners=False)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    areas = sizes * pixel[0] * pixel[1]
    small = np.flatnonzero(areas <= (VESSEL_MM2 if below is None else TUMOUR_MM2))
    for number in np.setdiff1d(small, [0, *border]).tolist():
        hole = labels == number
        if areas[number] <= TINY_MM2 or not _is_dome(hole, below, step, in_plane):
            result |= hole
    return result


def _is_dome(hole: Mask, below: Mask | None, step_mm: float, spacing_mm: Spacing) -> bool:
    """Whether a hole of the lung widens to tissue one slice below, as liver and spleen do."""
    if below is None:
        return False
    return float((~below[dilated(hole, step_mm, spacing_mm)]).mean()) >= DOME_SHARE


def _small(mask: Mask, most_mm2: float, spacing_mm: Spacing) -> Mask:
    """The regions of a mask up to an area."""
    labels, sizes = regions(mask)
    kept = sizes * spacing_mm[0] * spacing_mm[1] <= most_mm2
    kept[0] = False
    return kept[labels]


def _inside(polygons: Sequence[Polygon], like: Mask) -> Mask:
    inside = np.zeros_like(like)
    for polygon in polygons:
        inside |= inside_polygon(polygon, like.shape)
    return inside
