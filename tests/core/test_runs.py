"""Runs of a mask say what its pixels say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from lungseg.core.runs import Runs, label_regions
from lungseg.core.types import BoolArray

MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(MASKS, st.booleans())
def test_regions_of_runs_are_those_of_pixels(mask: BoolArray, corners: bool) -> None:
    """They are SciPy's, numbered alike, whether pixels that share a corner touch or not."""
    structure = np.ones((3, 3)) if corners else None
    labels, count = ndimage.label(mask, structure)  # type: ignore[misc]
    runs = Runs.of(mask)
    found = label_regions(mask, corners=corners)
    assert found[1] == runs.regions(corners=corners).count == count
    assert np.array_equal(found[0], labels)


@given(MASKS, st.integers(0, 12))
def test_runs_are_counted_and_cut_as_pixels_are(mask: BoolArray, column: int) -> None:
    """Pixels, columns' profile, sums of columns, and what lies before a column and behind it."""
    runs, columns = Runs.of(mask), np.arange(mask.shape[1])
    assert runs.pixels == np.count_nonzero(mask)
    assert np.array_equal(runs.profile(mask.shape[1]), mask.sum(axis=0))
    assert runs.column_sums.sum() == (mask * columns).sum()
    assert np.array_equal(runs.before(column).paint(1, mask.shape), mask & (columns < column))
    assert np.array_equal(runs.behind(column).paint(1, mask.shape), mask & (columns >= column))


@given(MASKS, st.data())
def test_rows_are_moved_and_come_back(mask: BoolArray, data: st.DataObject) -> None:
    """Each row goes by its own shift, and back by the opposite one."""
    shifts = np.array(data.draw(st.lists(st.integers(0, 5), min_size=12, max_size=12)))
    shifts = shifts[: len(mask)]
    moved = Runs.of(mask).moved(shifts)
    wide = moved.paint(1, (len(mask), mask.shape[1] + 5))
    for row, shift in enumerate(shifts):
        assert np.array_equal(wide[row, shift : shift + mask.shape[1]], mask[row])
    assert np.array_equal(moved.moved(-shifts).paint(1, mask.shape), mask)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_winding_path_is_one_region(turns: int) -> None:
    """A path that goes to and fro hangs together along its whole length, however it lies."""
    mask = np.zeros((41, 41), bool)
    mask[::2] = True
    mask[1::4, -1] = mask[3::4, 0] = True
    assert Runs.of(np.rot90(mask, turns)).regions(corners=False).count == 1
