"""Puts slices of any origin on one HU-like scale, so that windows mean the same on each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lungseg.core.preprocess import HISTOGRAM_BINS, is_flat, without_padding
from lungseg.core.types import AIR_HU, Scan, Unit

SOFT_TISSUE_HU = 40.0
"""Attenuation of muscle: the upper peak of a chest slice's histogram."""
ROBUST_PERCENTILES = (0.5, 99.5)
PAGE_SPREAD, PAGE_FRACTION = 0.02, 0.05
"""A page differs by at most this share of the robust range (JPEG), and fills at least so much."""
MIN_PEAK_DISTANCE = 0.2
"""Least distance of the two peaks, as a share of the robust range."""


def page_around(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The white page that an export put around the body: one bright value that holds the corners.

    Args:
        values: intensities of one slice, shape (Y, X).

    Returns:
        bool, the same shape; all False for a slice on air, padding or a table.
    """
    corners = values[[0, 0, -1, -1], [0, -1, 0, -1]]
    low, high = (float(edge) for edge in np.percentile(values, ROBUST_PERCENTILES))
    width = PAGE_SPREAD * (high - low)
    nothing = np.zeros(values.shape, bool)
    bright = low < high and float(corners.min()) >= (low + high) / 2
    if not bright or np.ptp(corners) > width:
        return nothing
    found: Any = ndimage.label(np.abs(values - np.median(corners)) <= width)
    labels, _ = found
    at_corners = np.unique(labels[[0, 0, -1, -1], [0, -1, 0, -1]])
    page = np.isin(labels, at_corners[at_corners > 0])
    return page if page.mean() >= PAGE_FRACTION else nothing


def find_peaks(values: NDArray[np.float32]) -> tuple[float, float]:
    """Finds the intensities of air (or aerated lung) and of soft tissue.

    The two highest modes of the smoothed histogram that lie far enough apart; the robust
    minimum and a point at 70% of the robust range where there are no two.

    Args:
        values: intensities of one slice, shape (Y, X).

    Returns:
        (air, soft tissue), air < soft tissue.
    """
    page = page_around(values)
    # Beside a page there is no padding, and the lungs might be taken for it.
    values = values[~page] if page.any() else without_padding(values)
    low, high = (float(edge) for edge in np.percentile(values, ROBUST_PERCENTILES))
    if is_flat(low, high):
        return low, low + 1.0
    counts, edges = np.histogram(values, bins=HISTOGRAM_BINS, range=(low, high))
    # Pictures clip at both ends: black and white are counted like any other level.
    smooth = ndimage.gaussian_filter1d(counts.astype(float), sigma=3.0, mode="constant")
    centres = (edges[:-1] + edges[1:]) / 2
    first = int(smooth.argmax())
    apart = np.abs(np.arange(HISTOGRAM_BINS) - first) >= MIN_PEAK_DISTANCE * HISTOGRAM_BINS
    modes = (smooth >= np.roll(smooth, 1)) & (smooth >= np.roll(smooth, -1)) & apart
    if not (smooth * modes).any():
        return low, low + 0.7 * (high - low)
    second = int((smooth * modes).argmax())
    air, tissue = sorted((centres[first], centres[second]))
    return float(air), float(tissue)


def air_and_tissue(values: NDArray[np.float32], unit: Unit) -> tuple[float, float]:
    """The intensities of air and soft tissue: known of HU, else found.

    Args:
        values: intensities of one slice, shape (Y, X).
        unit: what they are measured in.
    """
    return (AIR_HU, SOFT_TISSUE_HU) if unit == "HU" else find_peaks(values)


def pseudo_hu(scan: Scan) -> NDArray[np.float32]:
    """Intensities of a slice in HU, or scaled so that air and soft tissue lie where HU have them.

    Args:
        scan: one slice, Z = 1.

    Returns:
        float32, shape (Y, X).
    """
    values = scan.values[0]
    if scan.unit == "HU":
        return values
    air, tissue = find_peaks(values)
    slope = (SOFT_TISSUE_HU - AIR_HU) / (tissue - air)
    return ((values - air) * slope + AIR_HU).astype(np.float32)
