"""DICOM segmentations, read back by highdicom onto the source's own pixels."""

from __future__ import annotations

import io
import json
import warnings
from dataclasses import replace

import highdicom
import httpx
import numpy as np
import pydicom
import pytest

from lungseg.core.errors import InvalidParameter
from lungseg.formats.dicom_derived import Algorithm
from lungseg.formats.dicom_seg import dicom_seg
from lungseg.formats.read import read_scan
from tests.formats.dicoms import enhanced, parse, save
from tests.masks import segmentation
from training.synthetic.phantom import Phantom, dicom_bytes, make_phantom

MODEL = Algorithm(name="lung-unet", version="3", sha256="5e" * 32, largest_components=2)
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
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == "123110"
        assert algorithm.AlgorithmParameters == "threshold=0.5,largest_components=2"
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        assert item.TrackingID == f"lungseg {item.SegmentLabel}"
    assert [item.SegmentNumber for item in seg.SegmentSequence] == [1, 2]
    assert len({item.TrackingUID for item in seg.SegmentSequence}) == 2
    assert (seg.Manufacturer, seg.ManufacturerModelName) == ("lungseg", "lung-unet")
    assert (seg.SoftwareVersions, seg.DeviceSerialNumber) == ("3", "5e" * 8)
    assert (seg.SeriesNumber, seg.ContentLabel) == (300, "LUNGS")
    assert seg.ContentDescription == "Lungs, research use only"
    assert (seg.Modality, seg.Rows, seg.Columns) == ("SEG", *chest.lungs.shape)
    for keyword in ("PatientID", "PatientName", "StudyID", "StudyDate", "AccessionNumber"):
        assert seg.get(keyword, "") == source.get(keyword, ""), keyword


MOMENTS = {"ContentDate": None, "AcquisitionDate": None, "StudyDate": None}
MOMENTS |= {"ContentTime": None, "AcquisitionTime": None, "StudyTime": None}


@pytest.mark.parametrize(
    ("given", "date", "time_"),
    [
        ({}, "19000101", "000000"),
        ({"StudyDate": "20250103", "StudyTime": "030000"}, "20250103", "030000"),
        ({"StudyDate": "20250103", "AcquisitionDate": "20250102"}, "20250102", "000000"),
        ({"AcquisitionDate": "20250102", "ContentDate": "20250101"}, "20250101", "000000"),
        ({"StudyTime": "03", "AcquisitionTime": "0200"}, "19000101", "0200"),
        ({"AcquisitionTime": "0200", "ContentTime": "010000.5"}, "19000101", "010000.5"),
        ({"ContentDate": "20250230", "StudyDate": "20250103"}, "20250103", "000000"),
        ({"ContentTime": "240000", "StudyTime": "235959"}, "19000101", "235959"),
        ({"ContentTime": "0160", "StudyTime": "0159"}, "19000101", "0159"),
    ],
)
def test_its_moment_is_the_slices(chest: Phantom, given: dict, date: str, time_: str) -> None:
    """Of the content, else of the acquisition, else of the study: the first that is one."""
    seg = parse(written(changed(chest, **(MOMENTS | given)), chest.lungs))
    assert (seg.ContentDate, seg.ContentTime) == (date, time_)
    assert (seg.InstanceCreationDate, seg.InstanceCreationTime) == (date, time_)


@pytest.mark.parametrize(
    ("thickness", "between", "expected"),
    [("2.5", "4", 2.5), ("0", "4", 4), ("-1", "-3", 3), (None, "1.25", 1.25)],
)
def test_its_thickness_is_the_slices_else_the_distance(
    chest: Phantom, thickness: str | None, between: str, expected: float
) -> None:
    """Which may be written with a sign."""
    given = {"SliceThickness": thickness, "SpacingBetweenSlices": between}
    seg = parse(written(changed(chest, **given), chest.lungs))
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == expected


@pytest.mark.parametrize(
    ("removed", "how", "kept"),
    [("YES", "by hand", True), ("NO", "by hand", False), ("YES", "", False), ("YES", None, False)],
)
def test_that_an_identity_was_removed_is_told_with_how(
    chest: Phantom, removed: str, how: str | None, kept: bool
) -> None:
    """The standard wants both or neither."""
    given = {"PatientIdentityRemoved": removed, "DeidentificationMethod": how}
    seg = parse(written(changed(chest, **given), chest.lungs))
    found = seg.get("PatientIdentityRemoved"), seg.get("DeidentificationMethod")
    assert found == (("YES", how) if kept else (None, None))


def test_the_same_input_gives_the_same_bytes_and_another_mask_other_uids(chest: Phantom) -> None:
    """No chance shows, and no clock: every date and time is the slice's."""
    moment = {"StudyDate": "20010203", "ContentDate": "20010203"}
    moment |= {"StudyTime": "040506", "ContentTime": "040506"}
    content = changed(chest, **moment)
    first = written(content, chest.lungs)
    assert written(content, chest.lungs) == first
    times = {str(one.value) for one in parse(first).iterall() if one.VR in ("DA", "TM", "DT")}
    assert times <= {"20010203", "040506", "20010203040506", ""}
    other = written(content, chest.right)
    assert parse(other).SOPInstanceUID != parse(first).SOPInstanceUID


def test_an_empty_mask_is_a_segmentation_too(chest: Phantom) -> None:
    content = dicom_bytes(chest)
    seg, found = segments(written(content, np.zeros_like(chest.lungs)), parse(content))
    assert int(seg.NumberOfFrames) == 2
    assert not any(plane.any() for plane in found.values())
    seg, found = segments(written(content, chest.right), parse(content))
    assert int(seg.NumberOfFrames) == 2
    assert np.array_equal(found["Right lung"], chest.right)
    assert not found["Left lung"].any()


def test_enhanced_ct_of_one_frame(chest: Phantom) -> None:
    content = enhanced(chest)
    seg = highdicom.seg.segread(io.BytesIO(written(content, chest.lungs)))
    planes = seg.get_pixels_by_source_frame(parse(content).SOPInstanceUID, [1])[0]
    assert np.array_equal(planes.max(axis=-1) > 0, chest.lungs)


@pytest.mark.parametrize("shared", [False, True])
def test_enhanced_ct_wherever_its_geometry_stands(chest: Phantom, shared: bool) -> None:
    seg = parse(written(enhanced(chest, shared=shared), chest.lungs))
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert np.allclose(measures.PixelSpacing, chest.spacing_mm)
    assert all(len(str(number)) <= 16 for number in measures.PixelSpacing)


UNSOUND = {
    "FrameOfReferenceUID, ImagePositionPatient": {
        "FrameOfReferenceUID": None,
        "ImagePositionPatient": None,
    },
    "StudyInstanceUID": {"StudyInstanceUID": "no uid"},
    "SOPClassUID": {"SOPClassUID": "1.3.46.670589.5.0.1.1"},
    "ImageOrientationPatient": {"ImageOrientationPatient": ["1", "0"]},
    "SliceThickness": {"SliceThickness": None},
    "of: SliceThickness$": {"SliceThickness": "0", "SpacingBetweenSlices": "0"},
}


@pytest.mark.parametrize("named", UNSOUND)
def test_missing_and_unsound_attributes_are_named(chest: Phantom, named: str) -> None:
    with pytest.raises(InvalidParameter, match=named):
        written(changed(chest, **UNSOUND[named]), chest.lungs)


def changed(chest: Phantom, **attributes: object) -> bytes:
    """The file with attributes as scanners write them, whatever the standard says."""
    dataset = parse(dicom_bytes(chest))
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
            if value is None:
                delattr(dataset, keyword)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is meant to be unsound
            return save(dataset)
    finally:
        pydicom.config.settings.writing_validation_mode = pydicom.config.RAISE


CHARACTER_SETS = {
    "": "Roe^Jane",
    "ISO_IR 6": "Roe^Jane",
    "ISO_IR 100": "Müller^Jörg",
    "ISO 2022 IR 6\\ISO 2022 IR 100": "Müller^Jörg",
    "\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎",
    "ISO 2022 IR 13\\ISO 2022 IR 87": "Yamada^Tarou=山田^太郎",
    "\\ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
    "ISO_IR 192": "Wang^XiaoDong=王^小东",
    "GB18030": "Wang^XiaoDong=王^小东",
    "unheard of": "Roe^Jane",
}


@pytest.mark.parametrize("character_set", CHARACTER_SETS)
def test_names_survive_every_character_set(chest: Phantom, character_set: str) -> None:
    name = CHARACTER_SETS[character_set]
    given = {"SpecificCharacterSet": character_set.split("\\"), "PatientName": name}
    seg = parse(written(changed(chest, **given), chest.lungs))
    assert seg.SpecificCharacterSet == "ISO_IR 192"
    assert str(seg.PatientName) == name


def test_what_the_standard_does_not_allow_is_not_passed_on(chest: Phantom) -> None:
    """Values found in the field that validators call errors; the thickness is made up for."""
    empty = ("ReferencedStudySequence", "OtherPatientIDsSequence", "ProcedureCodeSequence")
    given: dict[str, object] = {keyword: pydicom.Sequence([]) for keyword in empty}
    given |= {"SpacingBetweenSlices": "-5", "SliceThickness": None, "PatientAge": "45"}
    given |= {"ClinicalTrialSponsorName": "", "SmokingStatus": "perhaps", "ContentTime": "250000"}
    given |= {"StudyDate": "20261399", "StudyDescription": "x" * 100, "InstanceNumber": "-1"}
    seg = parse(written(changed(chest, **given), chest.lungs))
    for element in seg.iterall():
        assert element.VR != "SQ" or element.value, element.keyword
        assert element.keyword not in given or element.value in ("", "120000", 1, 5)
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == 5
    assert "SpacingBetweenSlices" not in measures
    assert seg.StudyDate == ""


def test_slices_of_one_series_by_one_model_are_one_series(chest: Phantom) -> None:
    """Three hundred slices are no three hundred series; another threshold is another one."""
    segs = []
    for number, instance in enumerate(("1.2.3.1", "1.2.3.2", "1.2.3.3"), start=4):
        content = changed(chest, SOPInstanceUID=instance, InstanceNumber=number)
        mask = chest.lungs if number < 6 else chest.right
        segs.append(parse(written(content, mask)))
    assert len({seg.SeriesInstanceUID for seg in segs}) == 1
    assert len({seg.SOPInstanceUID for seg in segs}) == 3
    assert [seg.InstanceNumber for seg in segs] == [4, 5, 6]
    scan = read_scan(content)
    found = segmentation(scan, chest.lungs)
    for other_found, other_model in (
        (replace(found, threshold=0.25), MODEL),
        (found, replace(MODEL, version="4")),
        (found, replace(MODEL, largest_components=0)),
    ):
        other = parse(dicom_seg(content, scan, other_found, other_model))
        assert other.SeriesInstanceUID != segs[0].SeriesInstanceUID


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
    for asked, said in (("", "0.5,0"), ("&threshold=0.4&largest_components=7", "0.4,7")):
        told = client.post(f"/segment?format=dicom-seg{asked}", content=dicom)
        segment = parse(told.content).SegmentSequence[0]
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        wanted = "threshold={},largest_components={}".format(*said.split(","))
        assert algorithm.AlgorithmParameters == wanted
    refused = client.post("/segment?format=dicom-seg", content=grey_png)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_parameter")
