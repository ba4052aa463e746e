"""Masks that every encoding must carry unharmed, and what the pipeline makes of a mask."""

from __future__ import annotations

import numpy as np

from lungseg.core.orientation import usual_view
from lungseg.core.postprocess import Certainty
from lungseg.core.sides import label_lungs
from lungseg.core.types import Scan, Segmentation
from training.synthetic.phantom import make_phantom


def masks() -> dict[str, np.ndarray]:
    """Lung, empty, full, one pixel, a hole in the lung, corners that touch, and noise."""
    lung = make_phantom((337, 511), seed=3).lungs
    holed = np.zeros((31, 47), bool)
    holed[4:25, 6:40] = True
    holed[10:14, 12:20] = False
    one = np.zeros((7, 5), bool)
    one[6, 0] = True
    rng = np.random.default_rng(8)
    return {
        "lung": lung,
        "empty": np.zeros((9, 13), bool),
        "full": np.ones((9, 13), bool),
        "long": np.ones((150, 300), bool),
        "one pixel": one,
        "only pixel": np.ones((1, 1), bool),
        "hole": holed,
        "corners": np.indices((6, 8)).sum(axis=0) % 2 == 0,
        **{f"random {k}": rng.random((20 + k, 30)) < 0.1 * k for k in range(1, 10)},
    }


def segmentation(
    scan: Scan, mask: np.ndarray, probability: np.ndarray | None = None
) -> Segmentation:
    """What the pipeline makes of one slice whose network gave this mask, shape (Y, X)."""
    given = mask.astype(np.float32) if probability is None else probability.astype(np.float32)
    view = usual_view(scan)
    found = label_lungs(mask[None].astype(bool), scan, view)
    return Segmentation(
        labels=found.labels,
        threshold=0.5,
        laterality=view.laterality if found.sided[0] else None,
        components=found.components[0],
        confidence=Certainty.of(given, mask.astype(bool)).confidence,
        probability=given[None],
    )
