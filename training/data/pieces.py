"""Slices with truth and body on one HU-like scale: what is cached, varied and stressed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.clean import body_and_dark
from training.data.dataset import Sample
from training.data.intensity import pseudo_hu

Plane = NDArray[np.float32]
IGNORED_TARGET = -1.0
"""Of a cell of the target that no objective and no metric may count."""
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
    """

    hu: Plane
    lung: Plane
    body: Plane
    ignored: Plane

    @property
    def target(self) -> Plane:
        """What is learnt: the share of lung, ``IGNORED_TARGET`` where any of a cell is ignored."""
        known = self.ignored <= KNOWN
        return np.where(known, self.lung, np.float32(IGNORED_TARGET)).astype(np.float32)


def as_piece(sample: Sample) -> Piece:
    """A slice with its truth and its body on the HU-like scale."""
    body, _ = body_and_dark(sample.scan.values[0], sample.scan.unit)
    return Piece(
        hu=pseudo_hu(sample.scan),
        lung=sample.mask.astype(np.float32),
        body=body.astype(np.float32),
        ignored=sample.ignored.astype(np.float32),
    )
