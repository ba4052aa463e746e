"""The golden run begins at a scan: what a contract says of intensities and masks is proved too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from lungseg.core.postprocess import restore
from lungseg.inference.errors import BundleError
from lungseg.inference.golden import GoldenScan
from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from tests.standin import make_graph, write_bundle
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


def test_a_graph_that_fails_on_the_golden_input_is_refused(tmp_path: Path) -> None:
    """Here one that folds its input into planes of another size."""
    graph = onnx.load_from_string(make_graph())
    planes = next(one for one in graph.graph.initializer if one.name == "planes")
    planes.CopyFrom(onnx.numpy_helper.from_array(np.array([-1, 1, 7, 11]), "planes"))
    with pytest.raises(BundleError, match="the graph fails on the golden input"):
        load(write_bundle(tmp_path, graph=graph.SerializeToString()))


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


def with_arrays(folder: Path, **changed: np.ndarray) -> Path:
    with np.load(folder / "golden.npz") as golden:
        np.savez(folder / "golden.npz", **(dict(golden) | changed))
    return folder


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "golden.npz") as golden:
        return dict(golden)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("tolerance", "difference", "refused"),
    [(None, 0.0009, False), (None, 0.0011, True), (0.05, 0.049, False), (0.05, 0.051, True)],
)
def test_the_greatest_difference_of_any_pixel_counts(
    tmp_path: Path, tolerance: float | None, difference: float, refused: bool, sign: int
) -> None:
    """Not their mean, either way, by the contract's tolerance or a thousandth."""
    contract = {} if tolerance is None else {"golden": {"max_abs_difference": tolerance}}
    folder = write_bundle(tmp_path, **contract)
    mask = arrays_of(folder)["mask"]
    mask[0, 100, 120, 0] += sign * difference
    with_arrays(folder, mask=mask)
    if refused:
        with pytest.raises(BundleError, match="golden output"):
            load(folder)
    else:
        assert load(folder).contract.version == "1"


@pytest.mark.parametrize(("difference", "refused"), [(0.24, False), (0.26, True), (-0.26, True)])
def test_the_input_may_differ_by_a_quarter_of_a_grey_level(
    bundle: Path, difference: float, refused: bool
) -> None:
    """In any pixel of either scan."""
    for scan in (0, 1):
        image = arrays_of(bundle)["image"].astype(np.float32)
        row, column = np.argwhere(image[scan, :, :, 0] == 0)[0]
        image[scan, row, column] = difference
        folder = with_arrays(bundle, image=image)
        if refused:
            with pytest.raises(BundleError, match="grey levels"):
                load(folder)
        else:
            assert load(folder)


def test_lungs_may_differ_only_as_close_to_the_threshold_as_outputs_may(tmp_path: Path) -> None:
    """One pixel elsewhere is too many."""
    folder = write_bundle(tmp_path, golden={"max_abs_difference": 0.05})
    assert main(["golden", str(folder)]) == 0
    contract, arrays = load(folder).contract, arrays_of(folder)
    scan = GoldenScan(
        hu=arrays["hu"], grey=arrays["grey"], spacing_mm=tuple(map(float, arrays["spacing_mm"]))
    )
    placement = scan.fitted(contract)[0].placement
    away = np.abs(restore(arrays["mask"][:1].astype(np.float32), placement)[0] - 0.5)
    lungs = arrays["lungs"].copy()
    lungs[0] ^= away < 0.0499
    assert (lungs[0] != arrays["lungs"][0]).sum() > 10
    assert load(with_arrays(folder, lungs=lungs))
    row, column = np.argwhere((away > 0.0501) & (away < 0.08))[0]
    lungs[0, row, column] ^= True
    with pytest.raises(BundleError, match="others in 1 pixels"):
        load(with_arrays(folder, lungs=lungs))
