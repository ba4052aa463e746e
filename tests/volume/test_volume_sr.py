"""Structured reports of volumes: the answer's figures, for highdicom and dcmqi."""

from __future__ import annotations

import io
import json
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
from lungseg.core.types import Segmentation
from lungseg.core.volume import Volume
from lungseg.core.volume_measures import VolumeRegion, VolumeStatistics
from lungseg.core.volume_report import measure_volume
from lungseg.formats.dicom_seg import volume_seg
from lungseg.formats.dicom_sr import volume_sr
from lungseg.formats.volume import read_volume
from tests.volume.grids import chest, npy
from tests.volume.masks import MODEL, segmented
from tests.volume.series import sent

DCMQI = shutil.which("tid1500reader", path=Path(sys.executable).parent)
SIDES = {"lungseg Right lung": "right", "lungseg Left lung": "left"}
CODES = {
    "118565006": "volume_ml",
    "118538004": "mass_g",
    "373098007": "mean",
    "386136009": "std",
    "373099004": "median",
}


@pytest.fixture(scope="module")
def found() -> tuple[Volume, Segmentation, VolumeStatistics]:
    volume = read_volume(sent("axial").files)
    random = np.random.default_rng(2)
    values = volume.scan.values + random.integers(-90, 90, volume.scan.values.shape, np.int16)
    volume = replace(volume, scan=replace(volume.scan, values=values))
    segmentation = segmented(volume)
    return volume, segmentation, measure_volume(volume, segmentation).statistics


def expected(region: VolumeRegion) -> dict[str, float | None]:
    """What the answer says of a part of the lungs, by the names of its members."""
    intensity = {name: getattr(region.intensity, name) for name in ("mean", "std", "median")}
    density = {name: getattr(region.density, name) for name in region.density.__slots__}
    return {"volume_ml": region.volume_ml, "mass_g": region.mass_g, **intensity, **density}


def figures(group: object) -> dict[str, float]:
    """The same as the report has it: by code, or by what a code is derived with."""
    return {
        CODES.get(code := (item.derivation or item.name).value, code): item.value
        for item in group.get_measurements()
    }


def test_highdicom_reads_the_answers_figures(found: tuple) -> None:
    """Of each lung and of both, to the last digit, with their units and sides."""
    volume, segmentation, statistics = found
    report = highdicom.sr.srread(io.BytesIO(volume_sr(volume, segmentation, statistics, MODEL)))
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == list(SIDES)
    for group in groups:
        region = getattr(statistics.lungs, SIDES[group.tracking_identifier])
        assert figures(group) == expected(region)
        assert len(figures(group)) == 12
        assert group.finding_sites[0].laterality.meaning.lower() == SIDES[group.tracking_identifier]
        units = {item.unit.value for item in group.get_measurements()}
        assert units == {"mL", "g", "[hnsf'U]", "1"}
    (both,) = report.content.get_image_measurement_groups()
    assert both.finding_sites[0].value.meaning == "Both lungs"
    assert figures(both) == expected(statistics)


def test_it_says_what_it_is_and_refers_to_the_segmentation(found: tuple) -> None:
    """Preliminary, unverified, of the source's patient; to the very object that SEG would be."""
    volume, segmentation, statistics = found
    content = volume_sr(volume, segmentation, statistics, MODEL)
    assert content == volume_sr(volume, segmentation, statistics, MODEL)
    report = highdicom.sr.srread(io.BytesIO(content))
    seg = pydicom.dcmread(io.BytesIO(volume_seg(volume, segmentation, MODEL)))
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert (report.PatientID, report.StudyInstanceUID) == (seg.PatientID, seg.StudyInstanceUID)
    assert report.SeriesInstanceUID not in (seg.SeriesInstanceUID, "1.2.3.4")
    evidence = {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert evidence == {seg.SOPInstanceUID, *(h.SOPInstanceUID for h in volume.headers)}
    for number, group in enumerate(report.content.get_volumetric_roi_measurement_groups(), 1):
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == seg.SOPInstanceUID
        assert segment.referenced_segment_numbers == [number]
        assert group.tracking_uid == seg.SegmentSequence[number - 1].TrackingUID
    times = {str(one.value) for one in report.iterall() if one.VR in ("DA", "TM", "DT")}
    assert times <= {"19000101", "000000", "19000101000000", ""}


@pytest.mark.skipif(DCMQI is None, reason="dcmqi is not installed: its tid1500reader reads reports")
def test_dcmqi_reads_the_answers_figures(found: tuple, tmp_path: Path) -> None:
    volume, segmentation, statistics = found
    path, out = tmp_path / "sr.dcm", tmp_path / "sr.json"
    path.write_bytes(volume_sr(volume, segmentation, statistics, MODEL))
    command = [str(DCMQI), "--inputDICOM", str(path), "--outputMetadata", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    groups = {
        group["TrackingIdentifier"]: group for group in json.loads(out.read_text())["Measurements"]
    }
    for name, side in SIDES.items():
        assert groups[name]["Laterality"]["CodeMeaning"].lower() == side
        items = {}
        for item in groups[name]["measurementItems"]:
            code = item.get("derivationModifier", item["quantity"])["CodeValue"]
            items[CODES.get(code, code)] = float(item["value"])
        assert items == pytest.approx(expected(getattr(statistics.lungs, side)), rel=1e-9)


def test_without_sides_there_is_one_lung(found: tuple) -> None:
    volume, _, _ = found
    segmentation = segmented(volume, sided=False)
    statistics = measure_volume(volume, segmentation).statistics
    report = highdicom.sr.srread(io.BytesIO(volume_sr(volume, segmentation, statistics, MODEL)))
    (group,) = report.content.get_volumetric_roi_measurement_groups()
    assert group.tracking_identifier == "lungseg Lung"
    assert group.finding_sites[0].laterality is None
    assert figures(group) == expected(statistics)
    assert not report.content.get_image_measurement_groups()


def test_what_is_unknown_is_left_out(found: tuple) -> None:
    """A slice has no ml, an empty lung no attenuation, and nothing is 0 that is not."""
    volume = read_volume(sent("one slice").files)
    segmentation = segmented(volume)
    segmentation.labels[segmentation.labels == 2] = 0
    statistics = measure_volume(volume, segmentation).statistics
    report = highdicom.sr.srread(io.BytesIO(volume_sr(volume, segmentation, statistics, MODEL)))
    right, left = report.content.get_volumetric_roi_measurement_groups()
    known = expected(statistics.lungs.right).items()
    assert figures(right) == {name: value for name, value in known if value is not None}
    assert "volume_ml" not in figures(right)
    assert set(figures(left)) <= {"volume_ml", "mass_g"}
    assert not any(figures(left).values())


def test_other_formats_have_no_report(found: tuple) -> None:
    _, _, statistics = found
    grid = read_volume([npy(chest())])
    with pytest.raises(InvalidParameter, match="DICOM"):
        volume_sr(grid, segmented(grid), statistics, MODEL)
