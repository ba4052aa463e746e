"""Segmentations of volumes: on their sources voxel for voxel, for highdicom and dcmqi."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from lungseg.core.errors import InvalidParameter
from lungseg.core.types import UNSIDED
from lungseg.core.volume import Volume
from lungseg.formats.dicom_seg import volume_seg
from lungseg.formats.volume import read_volume
from tests.volume.grids import chest, npy, read_by_itk
from tests.volume.masks import MODEL, segmented
from tests.volume.series import (
    ENHANCED_CT,
    REFUSED,
    SERIES,
    SPACING_MM,
    Sent,
    enhanced,
    instances,
    saved,
    sent,
    stack,
)

DCMQI = shutil.which("segimage2itkimage", path=Path(sys.executable).parent)
needs_dcmqi = pytest.mark.skipif(
    DCMQI is None, reason="dcmqi is not installed: its segimage2itkimage reads segmentations back"
)


def read(name: str) -> tuple[Sent, Volume]:
    return sent(name), read_volume(sent(name).files)


SENT = [(name, "BINARY") for name in SERIES if name not in REFUSED]
SENT += [
    (name, "LABELMAP") for name in ("oblique", "ten slices missing", "enhanced, a slope per frame")
]


@pytest.mark.parametrize(("name", "kind"), SENT)
def test_frames_lie_on_their_slices(name: str, kind: str) -> None:
    """Each at its slice's place, with its very pixels; the bead is where it was in the patient."""
    true, volume = read(name)
    check_frames(volume, kind, true.bead_mm)


@pytest.mark.parametrize("frames", [1, 12])
def test_frames_of_several_objects_are_each_referred_to_by_its_own(frames: int) -> None:
    """A series may be cut into objects of frames, or have one frame in each."""
    given = stack()
    parts = []
    for start in range(0, len(given.hu), frames):
        piece = slice(start, start + frames)
        part = replace(given, hu=given.hu[piece], positions=given.positions[piece])
        dataset = pydicom.dcmread(io.BytesIO(enhanced(part)))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{start}"
        parts.append(saved(dataset))
    volume = read_volume(parts)
    seg = check_frames(volume, "BINARY", given.bead_mm)
    (series,) = seg.ReferencedSeriesSequence
    named = [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
    assert sorted(named) == sorted({header.SOPInstanceUID for header in volume.headers})
    assert len(named) == len(parts)


def check_frames(volume: Volume, kind: str, bead_mm: np.ndarray) -> pydicom.Dataset:
    """Finds each frame's slice by its place alone, and compares pixels and references."""
    found = segmented(volume)
    seg = pydicom.dcmread(io.BytesIO(volume_seg(volume, found, MODEL, kind)))
    positions = volume.scan.positions_mm
    orientation = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    row, column = np.reshape([*map(float, orientation.ImageOrientationPatient)], (2, 3))
    seen = np.zeros_like(found.labels)
    frames = seg.pixel_array.reshape(-1, *found.labels.shape[1:])
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        index = int(np.linalg.norm(positions - place, axis=1).argmin())
        assert np.allclose(positions[index], place, atol=1e-5)
        number = 1
        if kind == "BINARY":
            number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        seen[index][frame > 0] = frame[frame > 0] * number
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        header = volume.headers[index]
        assert source.ReferencedSOPInstanceUID == header.SOPInstanceUID
        assert source.ReferencedSOPClassUID == header.SOPClassUID
        framed = header.SOPClassUID == ENHANCED_CT
        number = volume.frames[index] if volume.frames else 1
        assert source.get("ReferencedFrameNumber") == (number if framed else None)
    assert np.array_equal(seen, found.labels)
    k, i, j = np.argwhere(seen == 2)[0]
    bead = positions[k] + i * SPACING_MM[0] * column + j * SPACING_MM[1] * row
    assert np.abs(bead - bead_mm).max() <= 0.1
    return seg


def itk_image(content: bytes, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Segment numbers and affine that dcmqi makes of a segmentation."""
    path = folder / "seg.dcm"
    path.write_bytes(content)
    command = [str(DCMQI), "--inputDICOM", str(path), "--outputDirectory", str(folder)]
    done = subprocess.run(
        [*command, "--outputType", "nii", "--prefix", "x", "--mergeSegments"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (written,) = folder.glob("*.nii.gz")
    return read_by_itk(written.read_bytes(), ".nii.gz")


@needs_dcmqi
@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize(
    "name", ["axial", "coronal", "oblique", "prone", "enhanced, a slope per frame"]
)
def test_dcmqi_puts_it_on_the_source(name: str, kind: str, tmp_path: Path) -> None:
    """Voxel for voxel, on the slices that show lung."""
    pytest.importorskip("SimpleITK", reason="SimpleITK, which reads dcmqi's files, is missing")
    _, volume = read(name)
    found = segmented(volume)
    labels, affine = itk_image(volume_seg(volume, found, MODEL, kind), tmp_path)
    to_source = np.linalg.inv(volume.scan.affine) @ affine
    indices = np.argwhere(labels > 0)
    places = to_source @ np.vstack([indices.T, np.ones(len(indices))])
    at = np.rint(places[:3]).astype(int)
    assert np.abs(places[:3] - at).max() < 0.01
    again = np.zeros_like(found.labels)
    again[tuple(at)] = labels[tuple(indices.T)]
    assert np.array_equal(again, found.labels)


def test_highdicom_gives_the_sources_volume_back() -> None:
    """Of both kinds, with what they say of segments and source."""
    _, volume = read("axial")
    found = segmented(volume)
    for kind in ("BINARY", "LABELMAP"):
        seg = highdicom.seg.segread(io.BytesIO(volume_seg(volume, found, MODEL, kind)))
        assert seg.SegmentationType == kind
        assert seg.SeriesDescription == "Lungs, of 30 slices"
        pixels = seg.get_pixels_by_source_instance(
            [header.SOPInstanceUID for header in volume.headers],
            combine_segments=True,
            assert_missing_frames_are_empty=True,
        )
        assert np.array_equal(pixels, found.labels)
        (references,) = seg.ReferencedSeriesSequence
        assert len(references.ReferencedInstanceSequence) == 30
        assert [seg.get_segment_description(n).segment_label for n in (1, 2)] == [
            "Right lung",
            "Left lung",
        ]
        assert all("RecommendedDisplayCIELabValue" in item for item in seg.SegmentSequence[-2:])
        parameters = seg.SegmentSequence[-1].SegmentationAlgorithmIdentificationSequence[0]
        assert parameters.AlgorithmParameters == "threshold=0.5"


def test_the_same_volume_gives_the_same_bytes_and_other_masks_other_uids() -> None:
    """In any order of its files; the two kinds are objects of their own."""
    _, volume = read("axial")
    found = segmented(volume)
    first = volume_seg(volume, found, MODEL)
    assert volume_seg(read_volume(instances(stack())[::-1]), found, MODEL) == first
    other = volume_seg(volume, segmented(volume, sided=False), MODEL)
    uids = [
        pydicom.dcmread(io.BytesIO(one)).SOPInstanceUID
        for one in (first, other, volume_seg(volume, found, MODEL, "LABELMAP"))
    ]
    assert len(set(uids)) == 3
    times = {
        str(one.value)
        for one in pydicom.dcmread(io.BytesIO(first)).iterall()
        if one.VR in ("DA", "TM", "DT")
    }
    assert times <= {"19000101", "000000", "19000101000000", ""}


def test_lung_without_a_side_is_a_segment_of_its_own() -> None:
    """Alone where no sides are known, else beside them."""
    _, volume = read("axial")
    found = segmented(volume, sided=False)
    seg = highdicom.seg.segread(io.BytesIO(volume_seg(volume, found, MODEL)))
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["Lung"]
    found = segmented(volume)
    found.labels[3, 2:4, 2:4] = UNSIDED
    seg = highdicom.seg.segread(io.BytesIO(volume_seg(volume, found, MODEL)))
    assert [item.SegmentLabel for item in seg.SegmentSequence] == [
        "Right lung",
        "Left lung",
        "Lung",
    ]


def test_a_volume_without_lung_has_an_empty_segmentation() -> None:
    _, volume = read("axial")
    found = segmented(volume)
    found.labels[:] = 0
    for kind in ("BINARY", "LABELMAP"):
        seg = pydicom.dcmread(io.BytesIO(volume_seg(volume, found, MODEL, kind)))
        assert not seg.pixel_array.any()


def test_a_missing_thickness_is_the_distance_of_the_slices() -> None:
    volume = read_volume(instances(stack(), SliceThickness=None))
    seg = pydicom.dcmread(io.BytesIO(volume_seg(volume, segmented(volume), MODEL)))
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == pytest.approx(5.0)
    assert float(measures.SpacingBetweenSlices) == pytest.approx(5.0)


@pytest.mark.parametrize("lacking", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_sources_that_lack_an_identity_are_refused_by_name(lacking: str) -> None:
    """With no more of the header than the attribute's name."""
    volume = read_volume(instances(stack(), **{lacking: None}))
    with pytest.raises(InvalidParameter, match=lacking) as refused:
        volume_seg(volume, segmented(volume), MODEL)
    assert "Phantom" not in str(refused.value)
    grid = read_volume([npy(chest())])
    with pytest.raises(InvalidParameter, match="DICOM"):
        volume_seg(grid, segmented(grid), MODEL)
