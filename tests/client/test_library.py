"""The library: the same answers as the service gives, without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom.multival import MultiValue

import lungseg
from lungseg.core.errors import InvalidParameter, UndecodableImage
from lungseg.inference.errors import BundleError, ModelNotReady, UnknownModel
from tests.serving import Running
from tests.standin import write_bundle
from training.synthetic.phantom import Phantom


@pytest.fixture(scope="module")
def segmenter(models: Path) -> lungseg.Segmenter:
    return lungseg.load("standin", models=models)


def test_it_answers_as_the_service_does(
    segmenter: lungseg.Segmenter, service: Running, dicom: bytes, tmp_path: Path
) -> None:
    """A path here, bytes there: mask, statistics, confidence, flags and model are equal."""
    path = tmp_path / "slice.dcm"
    path.write_bytes(dicom)
    here = segmenter.segment(path, threshold=0.4)
    with lungseg.Client(service.url) as client:
        there = client.segment(dicom, threshold=0.4)
        png, as_json = client.fetch(dicom, "png"), client.fetch(dicom, "json")
    assert np.array_equal(here.mask, there.mask)
    assert here.statistics == there.statistics
    assert (here.confidence, here.flags) == (there.confidence, there.flags)
    assert (here.image, here.model) == (there.image, there.model)
    assert segmenter.fetch(path, "png").content == png.content
    assert segmenter.fetch(path, "png").summary == png.summary
    assert segmenter.fetch(path, "json").summary == as_json.summary
    assert here == here  # noqa: PLR0124 - an array has no one truth value
    assert here != there


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64", "uint16"])
def test_arrays_are_hu_where_the_caller_says_so(
    segmenter: lungseg.Segmenter, phantom: Phantom, dtype: str
) -> None:
    # a header's own values are pairs of another kind
    pair = np.array([0.7, 0.6]) if dtype == "int16" else MultiValue(float, [0.7, 0.6])
    hu = phantom.hu if dtype != "uint16" else np.clip(phantom.hu, 0, None)
    result = segmenter.segment(hu.astype(dtype), unit="HU", spacing_mm=pair)
    assert result.image["intensity_unit"] == "HU"
    assert result.image["spacing_mm"] == [0.7, 0.6]
    assert "not_calibrated_hu" not in result.flags
    grey = segmenter.segment(hu.astype(dtype))
    assert grey.image["intensity_unit"] == "grey level"
    assert grey.statistics["density"] is None


def test_a_unit_that_cannot_be_is_refused(
    segmenter: lungseg.Segmenter, phantom: Phantom, grey_png: bytes
) -> None:
    with pytest.raises(InvalidParameter, match="window_hu"):
        segmenter.segment(grey_png, unit="hu")
    with pytest.raises(InvalidParameter, match="both"):
        segmenter.segment(phantom.hu, unit="hu", window_hu=(-1000, 400))


def test_what_is_wrong_is_said(segmenter: lungseg.Segmenter, grey_png: bytes) -> None:
    with pytest.raises(InvalidParameter, match="threshold"):
        segmenter.segment(grey_png, threshold=3)
    with pytest.raises(InvalidParameter, match="tresh"):
        segmenter.segment(grey_png, tresh=0.5)
    with pytest.raises(InvalidParameter, match="overlay"):
        segmenter.fetch(grey_png, "gif")
    with pytest.raises(InvalidParameter, match="one model"):
        segmenter.segment(grey_png, model="other")
    with pytest.raises(UndecodableImage):
        segmenter.segment(np.zeros((2, 2, 2, 2)))
    for odd in (np.ma.masked_less(np.zeros((9, 9)), 1), np.array([[None]])):
        with pytest.raises(UndecodableImage, match="plain array"):
            segmenter.segment(odd)
    with pytest.raises(OSError, match="nowhere"):
        segmenter.segment("nowhere.dcm")


def test_errors_name_the_folder_that_was_searched(models: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match=str(models)):
        lungseg.load("nobody", models=models)
    with pytest.raises(UnknownModel, match=str(models)):
        lungseg.load("standin", version=7, models=models)
    (write_bundle(tmp_path) / "model.onnx").write_bytes(b"x")
    with pytest.raises(ModelNotReady, match=str(tmp_path)) as raised:
        lungseg.load("standin", models=tmp_path)
    with pytest.raises(BundleError) as refused:
        lungseg.load("standin", version=1, models=tmp_path)
    reason = str(refused.value).partition(" (looked")[0]
    assert f"version 1: {reason}" in str(raised.value)
    with pytest.raises(UnknownModel, match=f"{tmp_path}/nowhere: it is none"):
        lungseg.load("standin", models=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"expected providers among .*CPU.*, received Nowhere"):
        lungseg.load("standin", models=models, providers=["Nowhere"])
    with pytest.raises(BundleError, match=str(tmp_path)):
        lungseg.load("standin", version="1", models=tmp_path)


def test_a_version_is_what_was_asked_for(tmp_path: Path) -> None:
    write_bundle(tmp_path, version="1")
    write_bundle(tmp_path, version="2")
    newest, first = (lungseg.load("standin", models=tmp_path, version=v) for v in (None, 1))
    assert (newest.model.contract.version, first.model.contract.version) == ("2", "1")


def test_importing_it_loads_nothing_heavy() -> None:
    """Neither ONNX Runtime nor FastAPI, nor anything else but the standard library."""
    code = "import sys, lungseg; print(sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("onnxruntime", "fastapi", "numpy", "pydantic", "httpx"):
        assert f"'{heavy}'" not in found.stdout


def test_the_default_model_and_the_sample_are_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that knows nothing of lungseg, the sample is segmented by the default model."""
    monkeypatch.chdir(tmp_path)
    found = subprocess.run(
        [sys.executable, "-m", "lungseg", "sample"], capture_output=True, text=True, check=True
    )
    assert "LIDC-IDRI" in found.stderr
    result = lungseg.load().segment(found.stdout.strip())
    assert result.image["intensity_unit"] == "HU"
    assert result.statistics["lungs"]["right"]["pixels"] > 10_000
    assert result.statistics["lungs"]["left"]["pixels"] > 10_000
    assert result.flags == ()
