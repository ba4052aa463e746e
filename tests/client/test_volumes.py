"""Volumes by library and client: the same values, whatever holds the slices."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

import lungseg
from lungseg.answers import FORMS_BY_ENDING
from lungseg.core.errors import InvalidParameter, LungsegError, MalformedRequest
from lungseg.volume_forms import VOLUME_FORMS
from tests.client.studies import SLICES, SPACING_MM, instances_of, study

VOXEL_ML = float(np.prod(SPACING_MM)) / 1000
STAGES = ["read", "decode", "segment"]


@pytest.fixture(scope="module")
def segmenter(models: Path) -> lungseg.Segmenter:
    return lungseg.load("standin", models=models)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A folder of instances in folders, beside a text and a hidden file."""
    return study(tmp_path / "series")


def test_a_folder_a_zip_and_files_are_one_volume(
    segmenter: lungseg.Segmenter, series: Path
) -> None:
    """All give the same labels and figures."""
    found = segmenter.segment_volume(series)
    files = sorted(series.rglob("*.dcm"), reverse=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in files:
            archive.write(path, f"deep/{path.name}")
    for source in (str(series), files, [path.read_bytes() for path in files], packed.getvalue()):
        same = segmenter.segment_volume(source)
        assert np.array_equal(same.labels, found.labels)
        assert same.statistics == found.statistics
    assert found.labels.dtype == np.uint8
    assert np.array_equal(found.mask, found.labels > 0)
    assert set(np.unique(found.labels)) == {0, 1, 2}
    assert found.statistics["volume_ml"] == pytest.approx(found.mask.sum() * VOXEL_ML, rel=1e-6)
    assert found.answer["volume"]["slices"] == SLICES
    assert found.answer["model"]["name"] == "standin"
    assert "incomplete_apex" in found.flags


def test_arrays_say_what_they_are(segmenter: lungseg.Segmenter, series: Path) -> None:
    """An array gives the labels of the slices that it holds; without spacing there are no ml."""
    slices = [pydicom.dcmread(path) for path in series.rglob("*.dcm")]
    slices.sort(key=lambda one: float(one.ImagePositionPatient[2]))
    hu = np.stack([one.pixel_array.astype(np.int16) - 1024 for one in slices])
    found = segmenter.segment_volume(hu, unit="HU", spacing_mm=SPACING_MM)
    assert np.array_equal(found.mask, segmenter.segment_volume(series).mask)
    assert found.statistics["volume_ml"] == pytest.approx(found.mask.sum() * VOXEL_ML, rel=1e-6)
    assert segmenter.segment_volume(hu, unit="hu").statistics["volume_ml"] is None


def test_it_is_saved_in_the_form_that_the_name_tells(
    segmenter: lungseg.Segmenter, series: Path, tmp_path: Path
) -> None:
    found = segmenter.segment_volume(series)
    found.save(tmp_path / "mask.nii.gz")
    labels = np.asarray(nibabel.load(tmp_path / "mask.nii.gz").dataobj)
    assert np.array_equal(labels.transpose(2, 1, 0) > 0, found.mask)
    found.save(str(tmp_path / "A.NPZ"))
    assert np.array_equal(np.load(tmp_path / "A.NPZ")["labels"], found.labels)
    found.save(tmp_path / "a_sr.dcm")
    assert pydicom.dcmread(tmp_path / "a_sr.dcm").Modality == "SR"
    found.save(tmp_path / "report", form="json")
    assert json.loads((tmp_path / "report").read_bytes()) == found.answer
    assert segmenter.fetch_volume(series, "json").summary == found.answer
    with pytest.raises(InvalidParameter, match=r"ends with one of .json, .nii.gz"):
        found.save(tmp_path / "mask.nii")
    with pytest.raises(InvalidParameter, match="a form among json, nifti"):
        found.save(tmp_path / "mask.nii", form="analyze")
    assert not (tmp_path / "mask.nii").exists()


def test_each_form_has_an_ending() -> None:
    """And what results are called by default ends with one that tells the same form."""
    assert set(VOLUME_FORMS) <= set(FORMS_BY_ENDING.values())
    for name, form in VOLUME_FORMS.items():
        told = [one for ending, one in FORMS_BY_ENDING.items() if form.suffix.endswith(ending)]
        assert told[0] == name


def test_progress_is_told_stage_by_stage(segmenter: lungseg.Segmenter, series: Path) -> None:
    """Each stage up to its end; what hears it may end the work."""
    heard: list[tuple[str, int, int]] = []
    segmenter.segment_volume(series, progress=lambda *step: heard.append(step))
    assert list(dict.fromkeys(stage for stage, _, _ in heard)) == STAGES
    for name in STAGES:
        steps = [(done, total) for stage, done, total in heard if stage == name]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1] >= SLICES

    def stop(stage: str, _done: int, _total: int) -> None:
        if stage == "segment":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segmenter.segment_volume(series, progress=stop)


def test_what_is_wrong_is_said(segmenter: lungseg.Segmenter, series: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for empty in (tmp_path / "empty", []):
        with pytest.raises(MalformedRequest, match="received none"):
            segmenter.segment_volume(empty)
    with pytest.raises(FileNotFoundError):
        segmenter.segment_volume(tmp_path / "nowhere")
    with pytest.raises(InvalidParameter, match="threshold"):
        segmenter.segment_volume(series, threshold=3)
    with pytest.raises(InvalidParameter, match="spacing_mm"):
        segmenter.segment_volume(series, spacing_mm=(1, 1))
    with pytest.raises(InvalidParameter, match="one model"):
        segmenter.segment_volume(series, model="other")
    with pytest.raises(InvalidParameter, match="series"):
        segmenter.segment_volume(series, series="1.2.840")
    with pytest.raises(LungsegError):
        segmenter.segment_volume([*instances_of("1.5")[:1], b"no slice"], series="1.2")
