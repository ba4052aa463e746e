"""Slices with truth and body on one HU-like scale: what is cached, varied and stressed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.clean import body_and_dark
from training.data.dataset import Sample, read_airway
from training.data.intensity import pseudo_hu

Plane = NDArray[np.float32]
IGNORED_TARGET = -1.0
"""Of a cell of the target that no objective and no metric may count."""
AIRWAY_TARGET = -2.0
"""Of a cell of ``Piece.airway``: no lung, and said with more weight than other cells."""
APART = 0.006
"""Distance from the lungs, as a share of the side, beyond which air is not their blurred edge."""
KNOWN = 1e-3
"""Share of a cell that may be ignored before all of it is: interpolation rounds to some 1e-4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A slice with its truth.

    Attributes:
        hu: HU or pseudo-HU (``training.data.intensity``), float32, shape (height, width).
        lung: share of each cell that is lung, float32 in [0, 1].
        body: share of each cell that is body, float32 in [0, 1].
        ignored: share of each cell that neither trains nor counts, float32 in [0, 1].
        airway: share of each cell that is trachea or main bronchus, float32 in [0, 1]; where
            nobody drew them, of all air in the body that lies apart from the lungs.
    """

    hu: Plane
    lung: Plane
    body: Plane
    ignored: Plane
    airway: Plane

    @property
    def target(self) -> Plane:
        """What is learnt: the share of lung, or the codes of airways and of what is ignored."""
        inside = (self.airway >= 0.5) & (self.lung <= KNOWN)
        target = np.where(inside, np.float32(AIRWAY_TARGET), self.lung)
        return np.where(self.ignored > KNOWN, np.float32(IGNORED_TARGET), target)


def as_piece(sample: Sample) -> Piece:
    """A slice with its truth and its body on the HU-like scale."""
    lung, airway = sample.mask.astype(np.float32), read_airway(sample.pair)
    body, dark = body_and_dark(sample.scan.values[0], sample.scan.unit)
    if airway is None:
        steps = max(1, round(APART * min(lung.shape)))
        near = ndimage.binary_dilation(sample.mask | sample.ignored, iterations=steps)
        airway = body & dark & ~np.asarray(near, bool)
    return Piece(
        hu=pseudo_hu(sample.scan),
        lung=lung,
        body=body.astype(np.float32),
        ignored=sample.ignored.astype(np.float32),
        airway=airway.astype(np.float32),
    )
