"""The bead test: whatever a series is like, its bead comes back where it is, or a refusal."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lungseg.core.errors import LungsegError
from lungseg.core.geometry import even_affine
from lungseg.core.types import Scan
from lungseg.core.volume import Volume
from lungseg.formats.volume import read_volume
from tests.volume.series import BEAD_HU, SERIES, SPACING_MM, STEP_MM, TISSUE_HU, Sent

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


def read(sent: Sent, **options: object) -> Volume:
    return read_volume(sent.files, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SERIES)
def test_the_bead_is_where_it_was_or_the_refusal_comes(name: str) -> None:
    """Within half a voxel by the slices' positions, and by the one affine where there is one."""
    sent = SERIES[name]()
    if sent.refusal:
        with pytest.raises(LungsegError) as refused:
            read(sent)
        assert refused.value.code == sent.refusal
        return
    volume = read(sent)
    scan = volume.scan
    assert (len(scan.values), scan.unit) == (sent.slices, "HU")
    place = place_of_bead(scan)
    assert scan.values[place] == BEAD_HU
    half_mm = min(*SPACING_MM, STEP_MM) / 2
    assert np.linalg.norm(by_positions(scan, place) - sent.bead_mm) < half_mm
    affine = even_affine(scan)
    uneven = {"missing_slices", "non_uniform_spacing", "single_slice"} & set(scan.notes)
    assert (affine is None) == bool(uneven)
    if affine is not None:
        assert np.linalg.norm((affine @ [*place, 1])[:3] - sent.bead_mm) < half_mm


@pytest.mark.parametrize("name", [name for name, make in SERIES.items() if not make().refusal])
def test_what_is_odd_about_a_series_is_said(name: str) -> None:
    """Notes of geometry, what was dropped, and how many candidates there were."""
    sent = SERIES[name]()
    volume = read(sent)
    assert set(volume.scan.notes) & GEOMETRY == sent.notes
    assert Counter({one.reason: one.count for one in volume.dropped}) == sent.dropped
    assert len(volume.series) == sent.series
    chosen = [one for one in volume.series if one.chosen]
    assert [one.slices for one in chosen] == [sent.slices]
    assert len(volume.headers) == sent.slices
    assert volume.affine is None


@pytest.mark.parametrize("name", ["axial", "slopes that differ", "enhanced, a slope per frame"])
def test_each_slice_is_rescaled_by_its_own_slope(name: str) -> None:
    """All slices but the bead's show the same three tissues."""
    volume = read(SERIES[name]())
    for plane in volume.scan.values:
        assert set(np.unique(plane)) - {BEAD_HU} == {-1000, -850, TISSUE_HU}


def test_whole_slopes_give_whole_numbers() -> None:
    """One array of two bytes a voxel where the headers allow it, four where not."""
    assert read(SERIES["axial"]()).scan.values.dtype == np.int16
    assert read(SERIES["slopes that differ"]()).scan.values.dtype == np.float32
