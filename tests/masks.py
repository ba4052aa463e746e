"""Masks that every encoding must carry unharmed."""

from __future__ import annotations

import numpy as np

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
