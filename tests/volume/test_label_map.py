"""Label maps and volumes as files, read back by nibabel and SimpleITK where they belong."""

from __future__ import annotations

import gzip
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from lungseg.core.full_grid import MAX_GROWTH, full_grid
from lungseg.core.geometry import pixel_area_mm2, weights_mm
from lungseg.core.orientation import usual_view
from lungseg.core.types import Orientation, Scan
from lungseg.core.volume import Volume
from lungseg.formats.grid import GridOptions
from lungseg.formats.grids import read_grid
from lungseg.formats.label_map import label_nifti, label_nrrd, volume_nifti
from lungseg.formats.volume import read_volume
from tests.volume.grids import (
    DIRECTIONS,
    SIZE,
    affine_of,
    affine_of_nifti,
    by_itk,
    chest,
    nifti,
    npy,
    nrrd,
    read_by_itk,
)
from tests.volume.masks import segmented
from tests.volume.series import REFUSED, SERIES, sent

VALUES = chest()
LABELS = np.zeros(SIZE, np.uint8)
LABELS[1:5, 6:16, 6:12] = 1
LABELS[2:6, 6:16, 14:20] = 2


def stack(heights_mm: list[float], *, lean: float = 0.0, place: str = "axial") -> Volume:
    """Slices at these heights along the normal, shifted sideways by so much of each."""
    across, down, along = np.array(DIRECTIONS[place], float)
    heights = np.array(heights_mm)[:, None]
    scan = Scan(
        values=chest((len(heights), 22, 26)),
        unit="HU",
        media_type="application/dicom",
        spacing_mm=(0.8, 0.7),
        orientation=Orientation(row_direction=tuple(along), column_direction=tuple(down)),
        positions_mm=np.array([-9.0, 4, 2]) + heights * (across + lean * down),
    )
    return Volume(scan=scan)


@pytest.mark.parametrize("place", DIRECTIONS)
def test_labels_lie_on_the_source_for_nibabel_and_itk(place: str) -> None:
    """Of slices with positions, in both formats, and the values beside them."""
    volume = stack([2.5 * k for k in range(6)], place=place)
    content = label_nifti(volume, LABELS)
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    assert image.get_data_dtype() == np.uint8
    assert np.array_equal(np.asanyarray(image.dataobj), LABELS.transpose(2, 1, 0))
    assert np.allclose(affine_of_nifti(gzip.decompress(content)), volume.scan.affine, atol=1e-4)
    assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    assert (image.header["qform_code"], image.header["sform_code"]) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"
    pytest.importorskip("SimpleITK", reason="SimpleITK, which reads the files, is not installed")
    beside = volume_nifti(volume)
    for name, written, array in (
        (".nii.gz", content, LABELS),
        (".nrrd", label_nrrd(volume, LABELS), LABELS),
        (".nii.gz", beside, volume.scan.values),
    ):
        found, affine = read_by_itk(written, name)
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)
        assert np.allclose(affine, volume.scan.affine, atol=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"sform_code": 0, "qform_code": 0},
        {"qoffset_x": 95.0, "qform_code": 2, "sform_code": 4},
        {"srow_x": [-0.7, 0.2, 0.1, 3], "qform_code": 0},
        {"xyzt_units": 9},
    ],
)
def test_the_header_of_a_nifti_is_written_back_without_its_texts(fields: dict) -> None:
    """Geometry to the byte, however odd; nothing that could name somebody."""
    secret = {"descrip": b"Roe^Jane", "aux_file": b"Roe^Jane", "intent_name": b"Roe^Jane"}
    secret |= {"db_name": b"Roe^Jane", "data_type": b"Roe", "cal_max": 7, "toffset": 3}
    for order in ("<", ">"):
        content = nifti(VALUES, affine_of("oblique"), **(secret | fields))
        if order == ">":
            loaded = nibabel.Nifti1Image.from_bytes(content)
            content = nibabel.Nifti1Image(
                VALUES.transpose(2, 1, 0), None, loaded.header.as_byteswapped(">")
            ).to_bytes()
        source = nibabel.Nifti1Header(content[:348], order, check=False)
        volume = read_grid(content, GridOptions())
        for written, kind in ((label_nifti(volume, LABELS), "u1"), (volume_nifti(volume), "i2")):
            head = gzip.decompress(written)
            assert b"Roe" not in head
            header = nibabel.Nifti1Header(head[:348], order)
            for name in ("sform_code", "qform_code", "quatern_b", "qoffset_x", "srow_x", "srow_z"):
                assert np.array_equal(header[name], source[name]), name
            assert np.array_equal(header["pixdim"][:4], source["pixdim"][:4])
            assert header["xyzt_units"] == source["xyzt_units"]
            assert header.get_data_dtype() == np.dtype(order + kind)
            assert (header["cal_max"], header["toffset"]) == (0, 0)
        again = read_grid(volume_nifti(volume), GridOptions())
        assert np.array_equal(again.scan.values, VALUES)
        assert again.scan.notes == volume.scan.notes


@pytest.mark.parametrize("spacing", [None, (2.5, 0.8, 0.7)])
def test_sources_without_directions_give_maps_without_them(spacing: tuple | None) -> None:
    """Only distances, where they are known."""
    volume = read_grid(npy(VALUES), GridOptions(spacing_mm=spacing))
    for content in (label_nifti(volume, LABELS), label_nrrd(volume, LABELS)):
        again = read_grid(content, GridOptions(unit="grey level"))
        assert np.array_equal(again.scan.values, LABELS)
        assert again.affine is None
    assert again.scan.spacing_mm == (spacing and spacing[1:])
    header = nibabel.Nifti1Image.from_bytes(gzip.decompress(label_nifti(volume, LABELS))).header
    assert header.get_xyzt_units()[0] == ("unknown" if spacing is None else "mm")
    assert header.get_zooms() == pytest.approx((spacing or (1, 1, 1))[::-1])
    assert (header["qform_code"], header["sform_code"]) == (0, 0)


def test_an_affine_of_a_file_goes_on_as_it_is() -> None:
    """Even one that is sheared."""
    header = "space: RAS\nspace directions: (0.7,0.1,0) (0,0.8,0) (0,0.5,2.5)\n"
    volume = read_grid(nrrd(VALUES, header + "space origin: (1,2,3)\n"), GridOptions())
    for content in (label_nifti(volume, LABELS), label_nrrd(volume, LABELS)):
        again = read_grid(content, GridOptions(unit="grey level"))
        assert np.allclose(again.affine, volume.affine, atol=1e-6)
        assert np.array_equal(again.scan.values, LABELS)


@pytest.mark.parametrize("lean", [0.0, 0.27])
def test_missing_slices_get_planes_between_their_neighbours(lean: float) -> None:
    """Slices lie where they lay, straight or by a tilted gantry; values are mixed in between."""
    kept = [0, 1, 2, 4, 7, 8, 9]
    volume = stack([2.0 * k for k in kept], lean=lean)
    grid = full_grid(volume)
    assert len(grid.below) == 10
    for index, plane in enumerate(kept):
        place = grid.affine @ [plane, 0, 0, 1]
        assert np.allclose(place[:3], volume.scan.positions_mm[index])
        assert (grid.below[plane], grid.share[plane]) == (index, 0)
    values = grid.values(volume.scan.values)
    assert np.array_equal(values[kept], volume.scan.values)
    mean = volume.scan.values[3:5].astype(float)
    assert np.abs(values[5] - (2 * mean[0] + mean[1]) / 3).max() <= 0.51
    labels = np.zeros((7, 22, 26), np.uint8)
    labels[3, 6:16, 4:10], labels[4, 6:16, 4:16] = 1, 1  # it grows by six columns
    labels[3:5, 6:16, 18:24] = 2
    filled = grid.labels(labels)
    assert np.array_equal(filled[kept], labels)
    assert [np.count_nonzero(row == 1) for row in filled[4:8, 11]] == [6, 8, 10, 12]
    assert [np.count_nonzero(row == 2) for row in filled[4:8, 11]] == [6, 6, 6, 6]


def test_a_lung_that_ends_in_a_gap_ends_half_way() -> None:
    volume = stack([0, 1, 5, 6])
    labels = np.zeros((4, 22, 26), np.uint8)
    labels[2, 5:9, 5:9] = 2
    filled = full_grid(volume).labels(labels)
    assert [int(np.count_nonzero(plane)) for plane in filled] == [0, 0, 0, 16, 16, 16, 0]


def test_mixed_steps_give_the_finest_with_nearest_slices() -> None:
    heights = [0, 5, 10, 15, 22.5, 30, 37.5]
    volume = stack(heights)
    grid = full_grid(volume)
    assert not grid.is_scans
    planes = grid.affine @ np.stack(
        [np.arange(len(grid.below)), *[np.zeros(len(grid.below))] * 2, np.ones(len(grid.below))]
    )
    found = np.array(heights)[grid.below]
    assert np.abs(planes[2] - 2 - found).max() <= 7.5 / 2
    assert set(grid.below) == set(range(7))
    assert np.array_equal(grid.values(volume.scan.values), volume.scan.values[grid.below])


def test_jitter_and_regular_stacks_keep_their_planes() -> None:
    """Nothing is copied, in either direction."""
    for heights in ([0, 2.5, 5.02, 7.5], [7.5, 5, 2.5, 0], [3]):
        volume = stack(heights)
        grid = full_grid(volume)
        assert grid.is_scans
        assert grid.values(volume.scan.values) is volume.scan.values
        assert np.allclose(grid.affine, volume.scan.affine)


def test_one_long_gap_does_not_make_a_thousand_planes() -> None:
    volume = stack([0, 1, 2, 1000])
    grid = full_grid(volume)
    assert len(grid.below) == MAX_GROWTH * 4
    volume = stack([0, 0.02, 2.5, 5, 7.5])
    assert len(full_grid(volume).below) <= MAX_GROWTH * 5


def test_the_same_volume_gives_the_same_bytes_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(-1000, 400, (9, 512, 600), np.int16)  # some pieces
    volume = stack([1.0 * k for k in range(9)])
    volume = replace(volume, scan=replace(volume.scan, values=values))
    one = volume_nifti(volume)
    assert one == volume_nifti(volume, threads=3)
    assert np.array_equal(read_grid(one, GridOptions(unit="HU")).scan.values, values)
    assert one[4:8] == bytes(4)  # no time
    assert len(one) < values.nbytes


@pytest.mark.parametrize("name", [name for name in SERIES if name not in REFUSED])
def test_the_bead_of_every_series_is_where_it_was(name: str) -> None:
    """Within half a voxel by the map's own affine, in both formats."""
    true = sent(name)
    volume = read_volume(true.files)
    labels = segmented(volume).labels
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(label_nifti(volume, labels)))
    again = read_grid(label_nrrd(volume, labels), GridOptions(unit="grey level"))
    stored = np.asanyarray(image.dataobj)
    assert np.array_equal(again.scan.values, stored.transpose(2, 1, 0))
    for affine, at in (
        (np.diag([-1, -1, 1, 1]) @ image.affine, np.argwhere(stored == 2)),
        (again.affine, np.argwhere(again.scan.values == 2)),
    ):
        offsets = np.linalg.solve(affine, [*true.bead_mm, 1])[:3] - at
        assert np.abs(offsets).max(axis=1).min() <= 0.5


@pytest.mark.parametrize("name", ["axial", "coronal", "oblique", "slices from head to feet"])
def test_one_volume_in_four_formats_is_one_volume(name: str) -> None:
    """The same values in the same view, slice for slice, with the same weights."""
    pytest.importorskip("SimpleITK", reason="SimpleITK, which writes the files, is not installed")
    first = read_volume(sent(name).files)
    given = first.scan.values, first.scan.affine
    view = usual_view(first.scan)
    for content in (
        volume_nifti(first),
        nifti(*given),
        by_itk(*given, ".nrrd", packed=True),
        by_itk(*given, ".mha"),
    ):
        other = read_volume([content])
        assert other.scan.unit == "HU"
        assert np.array_equal(other.scan.values, first.scan.values)
        assert usual_view(other.scan) == view
        assert np.allclose(weights_mm(other.scan), weights_mm(first.scan), rtol=1e-5)
        assert pixel_area_mm2(other.scan) == pytest.approx(pixel_area_mm2(first.scan), rel=1e-5)
