"""From probabilities to a mask: what is lung at the threshold, and which regions are kept."""

from __future__ import annotations

import numpy as np
import pytest

from lungseg.core.postprocess import Certainty, cut
from lungseg.core.regions import bounding_box, keep_largest
from lungseg.core.runs import label_regions

DRAWN = """
.........
.aa...bb.
.a....b..
....c....
...c.....
....c.dd.
...c..d..
"""
"""Regions of 3, 3, 4 and 3 pixels, the third of which is held by its corners."""


def drawn(names: str) -> np.ndarray:
    return np.array([[cell in names for cell in row] for row in DRAWN.split()])


@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.7])
def test_lung_begins_at_the_threshold(threshold: float) -> None:
    """Exactly there, in the numbers that a network gives."""
    at = np.float32(threshold)
    beside = [np.nextafter(at, np.float32(0)), at, np.nextafter(at, np.float32(1))]
    mask = cut(np.array([[beside]]), threshold=threshold, largest_components=0)
    assert mask.tolist() == [[[False, True, True]]]


@pytest.mark.parametrize(
    ("count", "kept"), [(1, "c"), (2, "ca"), (3, "cab"), (4, "abcd"), (5, "abcd"), (0, "abcd")]
)
def test_the_largest_regions_are_kept_and_of_equal_ones_the_topmost(count: int, kept: str) -> None:
    """Slice by slice, whatever the others hold; 0 keeps all."""
    every = np.stack([drawn("abcd"), drawn("d"), drawn("")])
    found = cut(every.astype(np.float32), threshold=0.5, largest_components=count)
    assert np.array_equal(found[0], drawn(kept))
    assert np.array_equal(found[1:], every[1:])


def test_regions_touch_at_corners_too() -> None:
    assert label_regions(drawn("abcd"))[1] == 4
    assert np.array_equal(keep_largest(drawn("ac"), 1), drawn("c"))


def test_a_box_is_the_smallest_around_all_pixels() -> None:
    """First row and column, and those after the last; of nothing an empty one."""
    assert bounding_box(drawn("c")) == (slice(3, 7), slice(3, 5))
    assert bounding_box(drawn("abd")) == (slice(1, 7), slice(1, 8))
    assert bounding_box(drawn("")) == (slice(0, 0), slice(0, 0))


def test_confidence_adds_up_over_slabs_and_is_rounded_to_six_decimals() -> None:
    """Uncertain pixels are those from 0.1 to 0.9 anywhere, over the pixels of the mask."""
    first = np.array([[[0.0999, 0.1, 0.9, 0.9001, 0.97]]], np.float32)
    second = np.array([[[0.3, 1.0, 0.0]]], np.float32)
    parts = [Certainty.of(one, one >= 0.5) for one in (first, second)]
    assert (parts[1] + parts[0]) == (parts[0] + parts[1])
    assert Certainty() + parts[0] == parts[0]
    found = (parts[0] + parts[1]).confidence
    assert found.mean_probability == round((0.9 + 0.9001 + 0.97 + 1) / 4, 6)
    assert found.uncertain_fraction == 0.75
    assert found.max_probability == 1.0
    third = Certainty(lung=3, summed=1.0, uncertain=2, greatest=1 / 3).confidence
    assert (third.mean_probability, third.uncertain_fraction) == (0.333333, 0.666667)
    assert third.max_probability == 0.333333
    empty = Certainty.of(second * 0.1, second > 1).confidence
    assert (empty.mean_probability, empty.uncertain_fraction) == (None, None)
    assert empty.max_probability == 0.1
