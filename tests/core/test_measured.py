"""What was measured and what can be told of it, through the library's own door.

Truths are computed from the phantom's own values, in whatever mask was found.
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid

import lungseg
from lungseg.answers import Result
from tests.conftest import encode
from tests.documents.test_pages import ROOT
from tests.formats.dicoms import encapsulated
from tests.standin import write_bundle
from training.synthetic.phantom import Phantom, dicom_bytes, make_phantom

DENSITIES = ("laa_950", "laa_910", "laa_856", "haa_700", "haa_600", "haa_250", "perc15")


@pytest.fixture(scope="module")
def chest() -> Phantom:
    return make_phantom(seed=2)


@pytest.fixture(scope="module")
def segmenter() -> lungseg.Segmenter:
    """The model that is shipped: a mask has to be about right wherever the values end."""
    return lungseg.load(models=ROOT / "models")


def windowed(chest: Phantom, low: float, high: float, form: str = "PNG") -> bytes:
    """The slice as an 8-bit picture through a window."""
    grey = np.rint(np.clip((chest.hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    if form == "JPEG in TIFF":
        return encode(grey, "TIFF", compression="jpeg")
    return encode(grey, form)


def array(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def known(found: Result) -> set[str]:
    """Densities and intensities that are not null."""
    figures = found.statistics["density"] | found.statistics["intensity"]
    return {name for name, value in figures.items() if value is not None} - {"unit"}


def truth(chest: Phantom, found: Result) -> dict[str, float]:
    """Densities of the unclipped slice in the mask that was found."""
    inside = chest.hu[found.mask]
    return {
        **{f"laa_{t}": float((inside < -t).mean()) for t in (950, 910, 856)},
        **{f"haa_{t}": float((inside > -t).mean()) for t in (700, 600, 250)},
        "perc15": float(np.percentile(inside, 15)),
    }


CLIPPED = [
    ((-1350, 150), set(DENSITIES)),
    ((-1000, 400), set(DENSITIES)),
    ((-900, 100), set(DENSITIES) - {"laa_950", "laa_910"}),
    ((-450, 1050), {"haa_250"}),
    ((-160, 240), set()),
    ((-1000, -650), set(DENSITIES) - {"haa_600", "haa_250"}),
]
"""Windows, and the densities that each can show of the phantom, whose Perc15 is about -890."""


@pytest.mark.parametrize(("window", "shown"), CLIPPED)
@pytest.mark.parametrize("way", ["window_hu", "unit=hu", "12 bit DICOM"])
def test_what_a_window_clips_is_null(
    segmenter: lungseg.Segmenter, chest: Phantom, window: tuple, shown: set, way: str
) -> None:
    """However the clipped values come, what is given is true and what is not known is null."""
    clipped = replace(chest, hu=np.clip(chest.hu, *window))
    if way == "window_hu":
        found = segmenter.segment(windowed(chest, *window), window_hu=window)
    elif way == "unit=hu":
        found = segmenter.segment(array(clipped.hu.astype(np.int16)), unit="hu")
    else:
        found = segmenter.segment(dicom_bytes(clipped))
    given = known(found) & set(DENSITIES)
    assert given == shown
    expected = truth(chest, found)
    for name in given:
        slack = 4 if name == "perc15" else 0.04
        assert found.statistics["density"][name] == pytest.approx(expected[name], abs=slack)
    assert ("mean" in known(found)) is (window[0] <= -1000 and window[1] > 100)
    assert ("values_limited" in found.flags) is (len(known(found)) < 15)


@pytest.mark.parametrize(
    ("content", "parameters"),
    [
        ("JPEG", {"window_hu": (-1350, 150)}),
        ("JPEG in TIFF", {"window_hu": (-1350, 150)}),
        ("PNG", {"window_hu": (-1024, 3071)}),
        ("JPEG in DICOM", {}),
        ("slope 16", {}),
        ("rounded array", {"unit": "hu"}),
        ("rounded DICOM", {}),
    ],
)
def test_what_is_rounded_too_coarsely_is_null(
    segmenter: lungseg.Segmenter, chest: Phantom, content: str, parameters: dict
) -> None:
    """Neither thresholds nor percentiles of levels that lie far apart; a mean averages them."""
    if content == "slope 16":
        coarse = (np.rint(chest.hu / 16) * 16 + 1024) / 16
        body = dicom_bytes(replace(chest, hu=coarse - 1024), RescaleSlope="16")
    elif content == "JPEG in DICOM":
        rescaled = {"RescaleSlope": f"{1500 / 255:.6f}", "RescaleIntercept": "-1350"}
        eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
        frame = windowed(chest, -1350, 150, "JPEG")
        plain = dicom_bytes(chest)
        body = encapsulated(plain, frame, uid.JPEGBaseline8Bit, **rescaled, **eight)
    elif content == "rounded array":
        body = array((np.rint(chest.hu / 12.5) * 12.5).astype(np.float32))
    elif content == "rounded DICOM":
        body = dicom_bytes(replace(chest, hu=np.rint(chest.hu / 16) * 16))
    else:
        body = windowed(chest, *parameters["window_hu"], content)
    found = segmenter.segment(body, **parameters)
    assert found.statistics["pixels"] > 0
    assert known(found) == {"mean", "std"}
    assert "values_limited" in found.flags
    assert ("lossy_compression" in found.flags) is content.startswith("JPEG")
    mean = found.statistics["intensity"]["mean"]
    assert mean == pytest.approx(chest.hu[found.mask].mean(), abs=2)


@pytest.mark.parametrize(
    ("level", "tags"),
    [
        (-1024, {"PixelPaddingValue": 0}),
        (-2000, {"PixelPaddingValue": -2000}),
        (-2000, {}),
        (-3024, {}),
        (-1024, {}),
    ],
)
def test_padding_takes_part_in_no_statistic(
    chest: Phantom, tmp_path: Path, level: int, tags: dict
) -> None:
    """A reconstruction circle that cuts the lungs, and a mask that reaches beyond it."""
    y, x = np.indices(chest.hu.shape) - 255.5
    outside = np.hypot(x, y) > 0.30 * 512
    hu = np.where(outside, level, chest.hu)
    attributes: dict = dict(tags)
    if level < -1024:
        attributes |= {
            "PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15, "RescaleIntercept": "0"
        }  # fmt: skip
        attributes["PixelData"] = hu.astype("<i2").tobytes()
    write_bundle(tmp_path, name="lung-unet", cut=150, intensity={"window_hu": [-1000, 400]})
    dark = lungseg.load(models=tmp_path)
    found = dark.segment(dicom_bytes(replace(chest, hu=hu), **attributes))
    assert (found.mask & outside).sum() > 0.3 * found.mask.sum()
    inside = chest.hu[found.mask & ~outside]
    statistics = found.statistics
    assert statistics["pixels"] == found.mask.sum()
    # Air that noise has made -1024 as well cannot be told from padding.
    slack = 5 if level == -1024 else 1e-3
    low = pytest.approx((inside < -950).mean(), abs=slack / 1000)
    assert statistics["density"]["laa_950"] == low
    assert statistics["density"]["perc15"] == pytest.approx(np.percentile(inside, 15), abs=slack)
    assert statistics["intensity"]["mean"] == pytest.approx(inside.mean(), abs=slack)
    area = statistics["pixels"] * np.prod(chest.spacing_mm)
    assert statistics["area_mm2"] == pytest.approx(area, rel=1e-6)
    assert "outside_body" in found.flags
