"""Distances to a mask as scipy has them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lungseg.core.distance import distances


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0))
@settings(max_examples=100, deadline=None)
def test_distances_are_those_of_scipy(seed: int, share: float) -> None:
    """Of noise on planes of any shape; with nothing to be near to they are infinite."""
    noise = np.random.default_rng(seed)
    mask = noise.random(tuple(noise.integers(1, 30, 2))) < share**3
    found = distances(mask)
    if mask.any():
        assert np.allclose(found, np.asarray(ndimage.distance_transform_edt(~mask)))
    else:
        assert np.isinf(found).all()
