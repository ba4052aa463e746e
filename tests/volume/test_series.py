"""The bead test: whatever a series is like, its bead comes back where it is, or a refusal."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lungseg.core.errors import SeveralVolumes
from lungseg.core.geometry import even_affine
from lungseg.core.types import Scan
from lungseg.core.volume import Volume
from lungseg.formats.volume import read_volume
from tests.volume.series import BEAD_HU, REFUSED, SERIES, SPACING_MM, STEP_MM, TISSUE_HU, sent

GEOMETRY = {
    *("duplicate_slices", "non_uniform_spacing", "missing_slices", "gantry_tilt"),
    *("single_slice", "orientation_unknown"),
}


def place_of_bead(scan: Scan) -> tuple[int, int, int]:
    """Where the brightest voxel is; there is but one."""
    slice_, row, column = np.argwhere(scan.values == scan.values.max())[0]
    return int(slice_), int(row), int(column)


def by_positions(scan: Scan, place: tuple[int, int, int]) -> np.ndarray:
    """Patient mm of a voxel by its own slice's position."""
    assert scan.positions_mm is not None
    assert scan.orientation is not None
    assert scan.spacing_mm is not None
    slice_, row, column = place
    return (
        scan.positions_mm[slice_]
        + row * scan.spacing_mm[0] * np.array(scan.orientation.column_direction)
        + column * scan.spacing_mm[1] * np.array(scan.orientation.row_direction)
    )


def read(name: str) -> Volume:
    return read_volume(sent(name).files)


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_be_two_volumes_is_refused(name: str) -> None:
    """Never a mean of them, and never either by chance."""
    with pytest.raises(SeveralVolumes):
        read(name)


@pytest.mark.parametrize("name", [name for name in SERIES if name not in REFUSED])
def test_the_bead_is_where_it_was(name: str) -> None:
    """Within half a voxel by the slices' positions, and by the one affine where there is one."""
    true, volume = sent(name), read(name)
    scan = volume.scan
    assert (len(scan.values), scan.unit) == (true.slices, "HU")
    place = place_of_bead(scan)
    assert scan.values[place] == BEAD_HU
    half_mm = min(*SPACING_MM, STEP_MM) / 2
    assert np.linalg.norm(by_positions(scan, place) - true.bead_mm) < half_mm
    affine = even_affine(scan)
    uneven = {"missing_slices", "non_uniform_spacing", "single_slice"} & set(scan.notes)
    assert (affine is None) == bool(uneven)
    if affine is not None:
        assert np.linalg.norm((affine @ [*place, 1])[:3] - true.bead_mm) < half_mm


@pytest.mark.parametrize("name", [name for name in SERIES if name not in REFUSED])
def test_what_is_odd_about_a_series_is_said(name: str) -> None:
    """Notes of geometry, what was dropped, and how many candidates there were."""
    true, volume = sent(name), read(name)
    assert set(volume.scan.notes) & GEOMETRY == true.notes
    assert Counter({one.reason: one.count for one in volume.dropped}) == true.dropped
    assert len(volume.series) == true.series
    assert [one.slices for one in volume.series if one.chosen] == [true.slices]
    assert len(volume.headers) == true.slices
    assert volume.affine is None


@pytest.mark.parametrize("name", ["axial", "slopes that differ", "enhanced, a slope per frame"])
def test_each_slice_is_rescaled_by_its_own_slope(name: str) -> None:
    """All slices but the bead's show the same three tissues."""
    volume = read(name)
    for plane in volume.scan.values:
        assert set(np.unique(plane)) - {BEAD_HU} == {-1000, -850, TISSUE_HU}


def test_whole_slopes_give_whole_numbers() -> None:
    """One array of two bytes a voxel where the headers allow it, four where not."""
    assert read("axial").scan.values.dtype == np.int16
    assert read("slopes that differ").scan.values.dtype == np.float32
