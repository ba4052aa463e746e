"""What the command line writes beside slices is read by training as pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lungseg.cli import main
from training.data.dataset import list_pairs, read_sample

SLICES = ("p1_1.dcm", "p2_1.PNG", "1.2.840.1", "p3.v2.png")


@pytest.mark.parametrize("layout", ["beside", "images and masks"])
def test_masks_pair_with_their_slices(
    tmp_path: Path, models: Path, dicom: bytes, grey_png: bytes, layout: str
) -> None:
    """In one folder and in two, also of names with points and without an ending."""
    images, masks = (tmp_path, tmp_path) if layout == "beside" else (tmp_path / "images",) * 2
    if layout != "beside":
        images.mkdir()
        masks = tmp_path / "masks"
    for name in SLICES:
        (images / name).write_bytes(grey_png if name.lower().endswith("png") else dicom)
    asked = ["segment", str(images), "-o", str(masks), "--format", "png", "-q"]
    assert main([*asked, "--models-dir", str(models), "--model", "standin"]) == 0
    listing = list_pairs(tmp_path)
    assert {pair.image.name for pair in listing.pairs} == set(SLICES)
    assert listing.unmatched == ()
    for pair in listing.pairs:
        assert np.array_equal(read_sample(pair).mask, np.asarray(Image.open(pair.mask)) > 0)
