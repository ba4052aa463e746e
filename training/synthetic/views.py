"""Shows a slice as another exporter would have written it, for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from training.data.dataset import Sample
from training.data.intensity import pseudo_hu

STANDARD_WINDOWS_HU = ((-1350.0, 150.0), (-1024.0, 600.0), (-160.0, 240.0))
"""Lung, wide and mediastinal window: what 8-bit exports of chest CT usually show."""


def through_window(low_hu: float, high_hu: float) -> Callable[[Sample], Sample]:
    """An 8-bit picture of the slice through a window.

    Uncalibrated slices are windowed relative to their own air and soft-tissue peaks.

    Args:
        low_hu: what becomes black.
        high_hu: what becomes white.
    """

    def render(sample: Sample) -> Sample:
        grey = (pseudo_hu(sample.scan) - low_hu) * (255.0 / (high_hu - low_hu))
        values = np.rint(np.clip(grey, 0, 255)).astype(np.float32)[None]
        scan = replace(sample.scan, values=values, unit="grey level", white=255.0)
        return replace(sample, scan=scan)

    return render
