"""The stages in their one order, on scans of one slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lungseg.core.types import Scan
from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from lungseg.pipeline import Pipeline
from lungseg.query import SegmentQuery
from tests.standin import write_bundle


def test_a_volume_is_no_slice(models: Path) -> None:
    """It would be labelled slice by slice, as volumes are not."""
    model = Model.load(models / "standin" / "1", Engine())
    scan = Scan(values=np.zeros((2, 40, 40), np.int16), unit="HU", media_type="application/x-npy")
    with pytest.raises(ValueError, match="expected one slice, received 2"):
        Pipeline().find_lungs(scan, model)


def test_the_rule_of_the_bundle_holds_unless_a_caller_asks_otherwise(tmp_path: Path) -> None:
    """Threshold and regions, either by itself; 0 regions is a wish, too."""
    rule = {"threshold": 0.6, "largest_components": 1}
    bundle = write_bundle(tmp_path, mask=rule, intensity={"window_hu": [0, 255]})
    strict = Model.load(bundle, Engine())
    values = np.full((1, 256, 256), 255, np.int16)
    values[0, 20:80, 20:80], values[0, 120:240, 120:240] = 70, 68  # 0.5 and 0.55
    values[0, 20:60, 150:200], values[0, 140:220, 140:220] = 40, 40  # 0.95
    scan = Scan(values=values, unit="HU", media_type="application/x-npy")
    middles = [(50, 50), (40, 175), (130, 180), (180, 180)]

    def found(**asked: float) -> list[bool]:
        labels = Pipeline().find_lungs(scan, strict, SegmentQuery(**asked))
        assert labels.threshold == asked.get("threshold", 0.6)
        return [bool(labels.labels[0, row, column]) for row, column in middles]

    assert found() == [False, False, False, True]
    assert found(largest_components=0) == [False, True, False, True]
    assert found(largest_components=2) == [False, True, False, True]
    assert found(threshold=0.54, largest_components=0) == [False, True, True, True]
    assert found(threshold=0.5, largest_components=0) == [True] * 4  # exactly 0.5 is lung
    assert found(threshold=0.501, largest_components=0) == [False, True, True, True]
    assert found(threshold=0.54) == [False, False, True, True]
