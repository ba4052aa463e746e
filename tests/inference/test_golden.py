"""The golden run begins at a scan: what a contract says of intensities and masks is proved too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lungseg.inference.errors import BundleError
from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from tests.standin import write_bundle
from training.__main__ import main

WRONG: dict[str, tuple[dict[str, object], str]] = {
    "window": ({"intensity": {"window_hu": [-1000, 405]}}, "grey levels"),
    "percentiles": ({"intensity": {"grey_percentiles": [0.5, 98]}}, "grey levels"),
    "padding": ({"intensity": {"skip_padding": True}}, "grey levels"),
    "grid": ({"grid": "body"}, "grey levels"),
    "threshold": ({"mask": {"threshold": 0.6}}, "golden lungs"),
    "components": ({"mask": {"largest_components": 1}}, "golden lungs"),
}
"""Changes of a contract without any of its graph, and the words of the refusal."""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A stand-in with a golden scan of its own; it had the older pair before."""
    folder = write_bundle(tmp_path)
    assert main(["golden", str(folder)]) == 0
    return folder


def load(folder: Path) -> Model:
    return Model.load(folder, Engine())


@pytest.mark.parametrize("name", WRONG)
def test_a_contract_that_was_changed_alone_is_refused(bundle: Path, name: str) -> None:
    """The graph and its hash are as they were; renewing over it is refused as well."""
    changes, words = WRONG[name]
    path = bundle / "contract.json"
    load(bundle)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(BundleError, match=words):
        load(bundle)
    before = (bundle / "golden.npz").read_bytes()
    assert main(["golden", str(bundle)]) == 2
    assert (bundle / "golden.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("array", "reason"),
    [("hu", "scan without hu"), ("lungs", "scan without lungs"), ("image", "lacks the arrays")],
)
def test_half_a_golden_scan_is_no_older_pair(bundle: Path, array: str, reason: str) -> None:
    """What was lost from the file must not lower what is proved."""
    with np.load(bundle / "golden.npz") as golden:
        arrays = {name: golden[name] for name in golden.files if name != array}
    np.savez(bundle / "golden.npz", **arrays)
    with pytest.raises(BundleError, match=reason):
        load(bundle)


@pytest.mark.parametrize("array", ["hu", "grey", "spacing_mm", "lungs"])
def test_a_damaged_golden_scan_is_refused(bundle: Path, array: str) -> None:
    with np.load(bundle / "golden.npz") as golden:
        arrays = dict(golden)
    for wrong in (arrays[array][..., :-1], arrays[array].astype(float) * np.nan):
        np.savez(bundle / "golden.npz", **(arrays | {array: wrong}))
        with pytest.raises(BundleError, match="golden"):
            load(bundle)
