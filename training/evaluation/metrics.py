"""How well a mask agrees with the truth, at the input's own size.

Overlap as in Taha & Hanbury 2015 (BMC Medical Imaging 15:29). Surface distances run between
border pixels (4-connected erosion), as in MedPy: HD95 is the 95th percentile and ASSD the
mean of the distances of both directions together.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Region = NDArray[np.bool_]
CALIBRATION_BINS = 10
BOOTSTRAP_ROUNDS = 2000
MM2_PER_CM2 = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceMetrics:
    """Agreement of one mask with its truth.

    Where truth and mask are both empty, ratios are 1 and distances 0; where only one of them is,
    distances are NaN, and the precision of an empty mask is 0. Lengths are pixels unless a
    spacing was given, then mm.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    dice: float
    iou: float
    hd95: float
    assd: float
    area_error: float
    """(area of the mask − area of the truth) / area of the truth; NaN for an empty truth."""
    false_positive_fraction: float
    """Share of the slice that is wrongly called lung."""
    truth_fraction: float
    """Share of the slice that is lung."""


def compare_masks(
    mask: Region,
    truth: Region,
    spacing_mm: tuple[float, float] | None = None,
    *,
    ignored: Region | None = None,
) -> SliceMetrics:
    """Measures the agreement of a mask with the truth.

    Args:
        mask: bool, shape (Y, X).
        truth: bool, the same shape.
        spacing_mm: (row, column) spacing; None measures distances in pixels.
        ignored: pixels that do not count, whatever is there; None = all count.
    """
    known = np.ones(mask.shape, bool) if ignored is None else ~ignored
    counted = max(1, int(known.sum()))
    mask, truth = mask & known, truth & known
    hits = int((mask & truth).sum())
    found, real = int(mask.sum()), int(truth.sum())
    union = found + real - hits
    dice = _ratio(2 * hits, found + real)
    distances = _surface_distances(mask, truth, spacing_mm)
    return SliceMetrics(
        accuracy=1 - int((mask != truth).sum()) / counted,
        precision=0.0 if real and not found else _ratio(hits, found),
        recall=_ratio(hits, real),
        f1=dice,
        dice=dice,
        iou=_ratio(hits, union),
        hd95=float(np.percentile(distances, 95)),
        assd=float(distances.mean()),
        area_error=(found - real) / real if real else float("nan"),
        false_positive_fraction=(found - hits) / counted,
        truth_fraction=real / counted,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Areas:
    """Areas of one slice in cm², without what is ignored."""

    truth_cm2: float
    found_cm2: float
    false_cm2: float
    """Of the mask outside the truth."""
    airway_cm2: float
    """Of trachea and main bronchi, 0 where nobody drew them."""
    airway_called_lung_cm2: float


def measure_areas(
    mask: Region,
    truth: Region,
    spacing_mm: tuple[float, float],
    *,
    ignored: Region | None = None,
    airway: Region | None = None,
) -> Areas:
    """Measures a mask in cm².

    Args:
        mask: bool, shape (Y, X).
        truth: bool, the same shape.
        spacing_mm: (row, column) spacing.
        ignored: pixels that do not count; None = all count.
        airway: trachea and main bronchi; None where nobody drew them.
    """
    known = np.ones(mask.shape, bool) if ignored is None else ~ignored
    airway = np.zeros(mask.shape, bool) if airway is None else airway
    cell = spacing_mm[0] * spacing_mm[1] / MM2_PER_CM2
    regions = (truth, mask, mask & ~truth, airway, airway & mask)
    areas = [float((region & known).sum()) * cell for region in regions]
    return Areas(
        truth_cm2=areas[0],
        found_cm2=areas[1],
        false_cm2=areas[2],
        airway_cm2=areas[3],
        airway_called_lung_cm2=areas[4],
    )


def dice_of(mask: Region, truth: Region) -> float:
    """Dice alone, without the surface distances that cost most; 1 where both are empty."""
    return _ratio(2 * int((mask & truth).sum()), int(mask.sum()) + int(truth.sum()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Reliability of probabilities: pixels, summed probability and lung pixels of each bin."""

    pixels: NDArray[np.int64]
    probability: NDArray[np.float64]
    lung: NDArray[np.int64]

    def __add__(self, other: Calibration) -> Calibration:
        """The reliability over both."""
        return Calibration(
            pixels=self.pixels + other.pixels,
            probability=self.probability + other.probability,
            lung=self.lung + other.lung,
        )

    @property
    def expected_error(self) -> float:
        """Expected calibration error (Naeini 2015): mean |confidence − share| over pixels.

        Over those of uncertain probability alone, 0.1 to 0.9: with the many others, which are
        plain air or plain tissue, every model looks calibrated. NaN where there are none.
        """
        inner = slice(1, -1)  # of ten bins
        pixels = int(self.pixels[inner].sum())
        wrong = float(np.abs(self.probability - self.lung)[inner].sum())
        return wrong / pixels if pixels else float("nan")


def calibration(
    probability: NDArray[np.float32], truth: Region, *, ignored: Region | None = None
) -> Calibration:
    """Counts how often known pixels of each probability are lung, in bins of equal width."""
    if ignored is not None:
        probability, truth = probability[~ignored], truth[~ignored]
    place = np.minimum((probability.ravel() * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)

    def count(weights: NDArray[np.generic] | None) -> NDArray[np.float64]:
        return np.bincount(place, weights=weights, minlength=CALIBRATION_BINS).astype(np.float64)

    return Calibration(
        pixels=count(None).astype(np.int64),
        probability=count(probability.ravel()),
        lung=count(truth.ravel()).astype(np.int64),
    )


def bootstrap_interval(
    values: NDArray[np.float64], patients: Sequence[Hashable]
) -> tuple[float, float]:
    """95% percentile bootstrap interval of the mean (Efron 1979), drawn by patient.

    Slices of one patient are alike: drawn one by one, the interval would be far too narrow.

    Args:
        values: one a slice; NaN are left out.
        patients: whose slice each is.

    Returns:
        Lower and upper end, NaN without values.
    """
    finite = np.isfinite(values)
    if not finite.any():
        return float("nan"), float("nan")
    numbers: dict[Hashable, int] = {}
    whose = [numbers.setdefault(name, len(numbers)) for name in patients]
    sums = np.bincount(whose, weights=np.where(finite, values, 0.0))
    counts = np.bincount(whose, weights=finite)
    sums, counts = sums[counts > 0], counts[counts > 0]
    picks = np.random.default_rng(0).integers(0, sums.size, (BOOTSTRAP_ROUNDS, sums.size))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0 if part == whole else 0.0


def _surface_distances(
    mask: Region, truth: Region, spacing_mm: tuple[float, float] | None
) -> NDArray[np.float64]:
    """Distances from each border to the other; 0 where both masks are empty, NaN where one is."""
    if not mask.any() or not truth.any():
        return np.zeros(1) if mask.any() == truth.any() else np.full(1, np.nan)
    one, other = (_border(region) for region in (mask, truth))
    return np.hstack([_distance_to(other, spacing_mm)[one], _distance_to(one, spacing_mm)[other]])


def _border(region: Region) -> Region:
    return region & ~np.asarray(ndimage.binary_erosion(region), bool)


def _distance_to(border: Region, spacing_mm: tuple[float, float] | None) -> NDArray[np.float64]:
    return np.asarray(ndimage.distance_transform_edt(~border, sampling=spacing_mm))
