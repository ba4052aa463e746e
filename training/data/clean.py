"""Finds pairs whose mask can't be right, by rule, and says why.

The rules compare a mask with what plain anatomy and thresholding say of the slice: lung lies
inside the body, is mostly darker than soft tissue, and no large dark region inside the body
is left out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lungseg.core.postprocess import keep_largest
from lungseg.core.types import Unit
from training.data.intensity import air_and_tissue, page_around

OUTSIDE_BODY_FRACTION = 0.02
"""Share of a mask that may lie outside the body."""
MISSING_LUNG_FRACTION = 0.5
"""Area of an unlabelled dark region inside the body, as a share of the labelled area."""
EMPTY_FRACTION = 0.1
"""Share of the body that a dark region may fill where a mask is empty: a stomach full of gas does
not reach it, a lung of mid-chest does."""
MIN_DARK_FRACTION = 0.5
"""Share of a mask that must be darker than the middle between air and soft tissue."""
MAX_LUNG_FRACTION = 0.65
"""Largest share of a slice that lungs can fill."""
MIN_OVERLAP = 0.3
"""Jaccard index of a mask with the dark regions inside the body; less is misaligned."""
SPECK_FRACTION = 0.0005
"""Share of the slice below which a region is noise, a vessel or an airway."""
SMALL_FRACTION = 0.015
"""Share of the body below which a mask is the sliver of an apex or a base (10 cm² of a chest of
700): partial volume makes it grey, so that darkness says nothing about it."""
NOTABLE_FRACTION = 0.06
"""Share of the body from which a dark region without a label may be a lung: gas in stomach and
bowel takes less in all but a few, and a forgotten lung takes 10% or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """Why a pair should not be trained on.

    Attributes:
        code: stable name of the rule.
        reason: one sentence with the figures.
    """

    code: str
    reason: str


def suspect(
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    ignored: NDArray[np.bool_] | None = None,
    *,
    unit: Unit = "grey level",
) -> Suspicion | None:
    """Names the first rule that a mask breaks, None for a plausible mask.

    A slice without lung (an empty mask on a slice without large dark regions inside the
    body) is plausible.

    Args:
        values: intensities, shape (Y, X), any unit in which air is darker than tissue.
        mask: bool, shape (Y, X).
        ignored: bool, the same shape: where nobody can tell, no rule looks.
        unit: of the intensities.
    """
    body, dark = body_and_dark(values, unit)
    known = np.ones(mask.shape, bool) if ignored is None else ~ignored
    inside = _without_specks(dark & body & known)
    if not mask.any():
        share = _largest_area(inside) / max(1, int(body.sum()))
        if share > EMPTY_FRACTION:
            return Suspicion(
                code="empty_mask",
                reason=f"the mask is empty, but a dark region fills {share:.0%} of the body",
            )
        return None
    found = _beyond_body(mask, body) or _incomplete(mask, inside, body)
    if found is not None or mask.sum() < SMALL_FRACTION * body.sum():
        return found
    return _bright(mask, dark) or _misaligned(mask, inside)


def _beyond_body(mask: NDArray[np.bool_], body: NDArray[np.bool_]) -> Suspicion | None:
    if mask.mean() > MAX_LUNG_FRACTION:
        return Suspicion(code="too_large", reason=f"the mask fills {mask.mean():.0%} of the slice")
    near = np.asarray(ndimage.binary_dilation(body, iterations=_steps(body, 2)), bool)
    outside = float((mask & ~near).sum() / mask.sum())
    if outside <= OUTSIDE_BODY_FRACTION:
        return None
    return Suspicion(code="outside_body", reason=f"{outside:.1%} of the mask lies outside the body")


def _bright(mask: NDArray[np.bool_], dark: NDArray[np.bool_]) -> Suspicion | None:
    darkness = float((mask & dark).sum() / mask.sum())
    if darkness >= MIN_DARK_FRACTION:
        return None
    return Suspicion(code="not_dark", reason=f"only {darkness:.0%} of the mask is dark")


def _incomplete(
    mask: NDArray[np.bool_], inside: NDArray[np.bool_], body: NDArray[np.bool_]
) -> Suspicion | None:
    area = _largest_area(_without_specks(inside & ~mask))
    of_mask, of_body = area / int(mask.sum()), area / max(1, int(body.sum()))
    if of_mask <= MISSING_LUNG_FRACTION or of_body <= NOTABLE_FRACTION:
        return None
    return Suspicion(
        code="missing_lung",
        reason=f"an unlabelled dark region has {of_mask:.0%} of the mask's area "
        f"and {of_body:.0%} of the body's",
    )


def _misaligned(mask: NDArray[np.bool_], inside: NDArray[np.bool_]) -> Suspicion | None:
    overlap = float((mask & inside).sum() / (mask | inside).sum())
    if overlap >= MIN_OVERLAP:
        return None
    return Suspicion(
        code="misaligned", reason=f"mask and dark regions overlap by {overlap:.0%} only"
    )


def body_and_dark(
    values: NDArray[np.float32], unit: Unit = "grey level"
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The body with everything it encloses, and what is darker than half-way to tissue.

    Args:
        values: intensities, shape (Y, X).
        unit: of the intensities.

    Returns:
        Two bool planes: body (the largest bright region, holes filled), dark.
    """
    air, tissue = air_and_tissue(values, unit)
    values = np.where(page_around(values), np.float32(air), values)
    smooth = ndimage.gaussian_filter(values, sigma=1.0)
    dark = np.asarray(smooth) < (air + tissue) / 2
    solid = np.asarray(ndimage.binary_opening(~dark, iterations=_steps(values, 3)), bool)
    body = ndimage.binary_fill_holes(keep_largest(solid, 1))
    return np.asarray(body, bool), np.asarray(dark, bool)


def _without_specks(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    labels, sizes = _regions(
        np.asarray(ndimage.binary_opening(region, iterations=_steps(region, 2)), bool)
    )
    kept = sizes >= SPECK_FRACTION * region.size
    kept[0] = False
    return kept[labels]


def _largest_area(region: NDArray[np.bool_]) -> int:
    return int(_regions(region)[1][1:].max(initial=0))


def _steps(plane: NDArray[Any], at_512: int) -> int:
    """Morphology's iterations, the same share of the slice at every size."""
    return max(1, round(at_512 * min(plane.shape) / 512))


def _regions(region: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Connected regions by number, 0 being the ground, and the area of each number."""
    found: Any = ndimage.label(region)
    labels, count = found
    return labels, np.bincount(labels.ravel(), minlength=count + 1)
