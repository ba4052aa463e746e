"""Counted intensities say what sorting all of them would say, to the last digit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from lungseg.core.histogram import Histogram, counted

WHOLE = arrays.arrays(np.int16, st.integers(1, 60), elements=st.integers(-3000, 3000))
BROKEN = arrays.arrays(np.float32, st.integers(1, 60), elements=st.floats(-3000, 3000, width=32))
FAR = arrays.arrays(np.float32, st.integers(1, 60), elements=st.sampled_from([-1e6, 0, 7, 1e6]))
PERCENTS = (0, 5, 15, 50, 95, 99.5, 100)


@given(st.one_of(WHOLE, BROKEN, FAR), st.sampled_from([-3000.0, -1.5, 0.0, 7.0, 900.0]))
def test_counts_say_what_the_values_say(values: NDArray[np.float32], level: float) -> None:
    """Whole numbers are counted, others sorted; mean, spread, percentiles and shares agree."""
    found = Histogram.of(values)
    exact = values.astype(np.float64)
    assert found.size == values.size
    assert found.mean == pytest.approx(exact.mean(), abs=1e-6)
    assert found.std == pytest.approx(exact.std(), abs=1e-6)
    assert found.below(level) == np.count_nonzero(values < level)
    assert found.above(level) == np.count_nonzero(values > level)
    for percent, shown in zip(PERCENTS, found.percentiles(PERCENTS), strict=True):
        assert shown.value == pytest.approx(np.percentile(exact, percent), abs=1e-6)
        assert shown.lower == np.percentile(exact, percent, method="lower")
        assert shown.upper == np.percentile(exact, percent, method="higher")


@given(st.one_of(WHOLE, BROKEN, FAR), st.randoms(use_true_random=False))
def test_each_label_is_counted_by_itself(values: NDArray[np.float32], chance: object) -> None:
    """The row of a label is the histogram of its values; a label that none has is empty."""
    labels = np.array([chance.choice([0, 1, 3]) for _ in values], np.uint8)  # type: ignore[attr-defined]
    levels, counts = counted(values, labels, 4)
    assert counts.sum() == values.size
    for label in range(4):
        own = Histogram.of_counts(levels, counts[label])
        alone = Histogram.of(values[labels == label])
        assert np.array_equal(own.levels, alone.levels)
        assert np.array_equal(own.counts, alone.counts)


def test_nothing_has_no_values() -> None:
    """An empty histogram has a size of 0, and nothing below or above any level."""
    nothing = Histogram.of(np.zeros(0, np.float32))
    assert (nothing.size, nothing.below(0), nothing.above(0)) == (0, 0, 0)


def test_what_only_looks_whole_is_kept_as_it_is() -> None:
    """Far from the least value the distance to it is rounded; the value is not."""
    levels, _ = counted(np.array([-3000, 1e-5], np.float32), np.zeros(2, np.uint8), 1)
    assert levels.tolist() == [-3000, float(np.float32(1e-5))]
