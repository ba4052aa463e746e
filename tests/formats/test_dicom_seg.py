"""DICOM segmentations, read back by highdicom onto the source's own pixels."""

from __future__ import annotations

import io
import json
import time

import highdicom
import httpx
import numpy as np
import pydicom
import pytest

from lungseg.core.errors import InvalidParameter
from lungseg.formats.dicom_seg import Algorithm, dicom_seg
from lungseg.formats.read import read_scan
from tests.formats.dicoms import enhanced, parse
from tests.masks import segmentation
from training.synthetic.phantom import Phantom, dicom_bytes, make_phantom

MODEL = Algorithm(name="lung-unet", version="3", sha256="5e" * 32)
TILT = float(np.cos(0.3)), float(np.sin(0.3))
ORIENTATIONS = {
    "axial": [1, 0, 0, 0, 1, 0],
    "mirrored": [-1, 0, 0, 0, 1, 0],
    "prone": [-1, 0, 0, 0, -1, 0],
    "transposed": [0, 1, 0, 1, 0, 0],
    "oblique": [TILT[0], TILT[1], 0, -TILT[1], TILT[0], 0],
    "gantry tilt": [1, 0, 0, 0, TILT[0], TILT[1]],
}


@pytest.fixture(scope="module")
def chest() -> Phantom:
    return make_phantom((119, 173), seed=4)


def written(content: bytes, mask: np.ndarray) -> bytes:
    scan = read_scan(content)
    return dicom_seg(content, scan, segmentation(scan, mask), MODEL)


def segments(content: bytes, source: pydicom.Dataset) -> tuple[highdicom.seg.Segmentation, dict]:
    seg = highdicom.seg.segread(io.BytesIO(content))
    planes = seg.get_pixels_by_source_instance([source.SOPInstanceUID])[0]
    labels = [seg.get_segment_description(number).segment_label for number in seg.segment_numbers]
    return seg, {label: planes[..., index] > 0 for index, label in enumerate(labels)}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_it_reads_back_onto_the_source_pixel_for_pixel(chest: Phantom, name: str) -> None:
    content = dicom_bytes(
        chest, ImageOrientationPatient=ORIENTATIONS[name], ImagePositionPatient=[-80.5, 12, 7.25]
    )
    source = parse(content)
    seg, found = segments(written(content, chest.lungs), source)
    at_left = ("Left lung", "Right lung") if name in ("mirrored", "prone") else None
    right, left = at_left or ("Right lung", "Left lung")
    if name == "transposed":  # by that header one lung lies in front of the other: no sides
        assert found.keys() == {"Lung"}
        assert np.array_equal(found["Lung"], chest.lungs)
    else:
        assert np.array_equal(found[right], chest.right)
        assert np.array_equal(found[left], chest.left)
    group = seg.SharedFunctionalGroupsSequence[0]
    plane = group.PlaneOrientationSequence[0]
    assert np.allclose(plane.ImageOrientationPatient, source.ImageOrientationPatient)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert list(position) == list(source.ImagePositionPatient)
    assert np.allclose(group.PixelMeasuresSequence[0].PixelSpacing, source.PixelSpacing)
    volume = seg.get_volume(combine_segments=False)
    assert volume.spatial_shape[1:] == chest.lungs.shape


def test_what_it_says_of_source_segments_and_algorithm(chest: Phantom) -> None:
    content = dicom_bytes(chest)
    source = parse(content)
    seg, _ = segments(written(content, chest.lungs), source)
    assert seg.SegmentationType == "BINARY"
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert seg.StudyInstanceUID == source.StudyInstanceUID
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    reference = seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0]
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    for item, code in zip(seg.SegmentSequence, ("24028007", "7771000"), strict=True):
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("39607008", "SCT")
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == code
        assert item.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "123037004"
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("lung-unet", "3")


def test_the_same_input_gives_the_same_bytes_and_another_mask_other_uids(chest: Phantom) -> None:
    content = dicom_bytes(chest)
    first = written(content, chest.lungs)
    second_begins = time.time() // 1 + 1
    while time.time() < second_begins:  # a clock that shows would tick meanwhile
        pass
    assert written(content, chest.lungs) == first
    other = written(content, chest.right)
    assert parse(other).SOPInstanceUID != parse(first).SOPInstanceUID


def test_an_empty_mask_is_a_segmentation_too(chest: Phantom) -> None:
    content = dicom_bytes(chest)
    seg, found = segments(written(content, np.zeros_like(chest.lungs)), parse(content))
    assert int(seg.NumberOfFrames) == 2
    assert not any(plane.any() for plane in found.values())


def test_enhanced_ct_of_one_frame(chest: Phantom) -> None:
    content = enhanced(chest)
    seg = highdicom.seg.segread(io.BytesIO(written(content, chest.lungs)))
    planes = seg.get_pixels_by_source_frame(parse(content).SOPInstanceUID, [1])[0]
    assert np.array_equal(planes.max(axis=-1) > 0, chest.lungs)


def test_missing_attributes_are_named(chest: Phantom) -> None:
    content = dicom_bytes(chest, FrameOfReferenceUID=None, ImagePositionPatient=None)
    with pytest.raises(InvalidParameter, match="FrameOfReferenceUID, ImagePositionPatient"):
        written(content, chest.lungs)


def test_attributes_that_may_be_empty_may_be_missing_or_broken(chest: Phantom) -> None:
    names = ("PatientID", "PatientName", "PatientSex", "StudyDate", "StudyTime", "StudyID")
    content = dicom_bytes(chest, **dict.fromkeys((*names, "AccessionNumber")))
    assert written(content, chest.lungs)
    broken = parse(content)
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        broken.PatientSex, broken.StudyDate, broken.PatientBirthDate = "x?", "1.1.70", "yesterday"
        broken.PatientName, broken.SpecificCharacterSet = "Müller^Jörg", "ISO_IR 100"
        stream = io.BytesIO()
        broken.save_as(stream)
    finally:
        pydicom.config.settings.writing_validation_mode = pydicom.config.RAISE
    assert "Müller" in str(parse(written(stream.getvalue(), chest.lungs)).PatientName)


def test_over_http(client: httpx.Client, dicom: bytes, grey_png: bytes) -> None:
    answer = client.post("/segment", content=dicom, headers={"Accept": "application/dicom"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom"
    _, found = segments(answer.content, parse(dicom))
    npy = client.post("/segment?format=npy", content=dicom)
    assert np.array_equal(sum(found.values()) > 0, np.load(io.BytesIO(npy.content)))
    summary = json.loads(answer.headers["x-segmentation"])
    assert summary["statistics"]["lungs"]["right"]["pixels"] == found["Right lung"].sum()
    refused = client.post("/segment?format=dicom-seg", content=grey_png)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")
