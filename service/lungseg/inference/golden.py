"""The proof that a bundle does what it did where it was made: from a scan to its mask.

``golden.npz`` holds a scan twice, in HU and as grey levels of unknown origin with padding, what
the network saw of both, what it answered, and the masks. So the contract's intensity rule, grid
and mask rule are proved with the graph. Older bundles hold the network's input and output alone,
``image`` and ``mask``, which prove the graph and nothing around it.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.core.postprocess import cut, restore
from lungseg.core.preprocess import fit
from lungseg.core.types import BoolArray, FloatArray, ModelInput, Scan
from lungseg.inference.contract import Contract
from lungseg.inference.errors import BundleError

GREY_TOLERANCE = 0.25
"""Grey levels by which the network's input may differ: it is stored in 16 bits, to 1/8 level. A
window that is wrong by 3 HU differs by more."""
SCAN_ARRAYS = ("hu", "grey", "spacing_mm", "lungs")
Run = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GoldenScan:
    """One slice in HU, and as grey levels; both of shape (Y, X)."""

    hu: NDArray[np.int16]
    grey: NDArray[np.uint16]
    spacing_mm: tuple[float, float]

    def scans(self) -> tuple[Scan, Scan]:
        """The slice as it is decoded from a calibrated file, and from another."""
        calibrated = Scan(
            values=self.hu[None],
            unit="HU",
            media_type="application/dicom",
            spacing_mm=self.spacing_mm,
        )
        values = self.grey[None].astype(np.float32)
        return calibrated, Scan(values=values, unit="grey level", media_type="image/png")

    def fitted(self, contract: Contract) -> list[ModelInput]:
        """What a contract lets the network see of both."""
        size = contract.input.height, contract.input.width
        return [fit(scan, size, contract.intensity, covers=contract.grid) for scan in self.scans()]


def record(scan: GoldenScan, contract: Contract, run: Run) -> dict[str, NDArray[np.generic]]:
    """The arrays of ``golden.npz`` for a graph that ``run`` runs."""
    fitted = scan.fitted(contract)
    image = np.concatenate([one.grey for one in fitted]).astype(np.float16)
    mask = run(image.astype(np.float32))
    return {
        "image": image,
        "mask": mask,
        "hu": scan.hu,
        "grey": scan.grey,
        "spacing_mm": np.array(scan.spacing_mm),
        "lungs": np.stack([lungs for _, lungs in _restored(fitted, mask, contract)]),
    }


def check_golden(run: Run, contract: Contract, content: bytes) -> None:
    """Compares what a bundle does here with its ``golden.npz``.

    Raises:
        BundleError: it does something else, with a sentence that says where it differs.
    """
    arrays = _arrays(content)
    image, expected = (arrays[name].astype(np.float32) for name in ("image", "mask"))
    shapes = [(spec.height, spec.width, 1) for spec in (contract.input, contract.output)]
    if [image.shape[1:], expected.shape[1:]] != shapes or len(image) != len(expected):
        raise BundleError("golden.npz holds arrays of other shapes than the contract's")
    fitted: list[ModelInput] = []
    if "hu" in arrays:
        fitted = _checked_input(arrays, contract, image)
    try:
        output = run(image)
        difference = float(np.abs(output - expected).max())
    except Exception:  # noqa: BLE001 - whatever a graph that does not work raises
        raise BundleError("the graph fails on the golden input") from None
    if not difference <= contract.golden.max_abs_difference:  # NaN is refused too
        raise BundleError(
            f"expected the golden output to {contract.golden.max_abs_difference:g}, "
            f"received a difference of {difference:.3g}"
        )
    if fitted:
        _check_lungs(arrays["lungs"].astype(bool), _restored(fitted, output, contract), contract)


def _checked_input(
    arrays: dict[str, NDArray[np.generic]], contract: Contract, image: FloatArray
) -> list[ModelInput]:
    """What the network sees of the golden scan, which has to be the golden input."""
    try:
        row, column = (float(mm) for mm in arrays["spacing_mm"])
        scan = GoldenScan(
            hu=arrays["hu"].astype(np.int16),
            grey=arrays["grey"].astype(np.uint16),
            spacing_mm=(row, column),
        )
        fitted = scan.fitted(contract)
        seen = np.concatenate([one.grey for one in fitted])
        difference = float(np.abs(seen - image).max())
    except Exception:  # noqa: BLE001 - arrays of any shape and kind may stand there
        raise BundleError("golden.npz holds a damaged scan") from None
    if not difference <= GREY_TOLERANCE:
        raise BundleError(
            "expected the golden scan to become the golden input by the contract's intensity and "
            f"grid, received a difference of {difference:.3g} grey levels"
        )
    return fitted


def _check_lungs(
    expected: BoolArray,
    restored: list[tuple[FloatArray, BoolArray]],
    contract: Contract,
) -> None:
    found = np.stack([lungs for _, lungs in restored])
    if found.shape != expected.shape:
        raise BundleError("golden.npz holds a damaged scan")
    probability = np.stack([probability for probability, _ in restored])
    # As close to the threshold as outputs may differ, a pixel may fall on either side.
    near = np.abs(probability - contract.mask.threshold) <= contract.golden.max_abs_difference
    wrong = np.count_nonzero((found != expected) & ~near)
    if wrong:
        raise BundleError(
            "expected the golden lungs by the contract's grid and mask rule, "
            f"received others in {wrong} pixels"
        )


def _restored(
    fitted: list[ModelInput], output: FloatArray, contract: Contract
) -> list[tuple[FloatArray, BoolArray]]:
    """Of both scans the probabilities and the lungs, of shape (Y, X) each."""
    rule = contract.mask
    found: list[tuple[FloatArray, BoolArray]] = []
    for one, plane in zip(fitted, output, strict=True):
        probability = restore(plane[None], one.placement)
        lungs = cut(
            probability, threshold=rule.threshold, largest_components=rule.largest_components
        )
        found.append((probability[0], lungs[0]))
    return found


def _arrays(content: bytes) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as golden:
            arrays = {name: golden[name] for name in golden.files}
    except Exception:  # noqa: BLE001 - zipfile, zlib and numpy each have their own
        raise BundleError("golden.npz is damaged or lacks the arrays image and mask") from None
    if not {"image", "mask"} <= arrays.keys():
        raise BundleError("golden.npz is damaged or lacks the arrays image and mask")
    given = set(SCAN_ARRAYS) & arrays.keys()
    if given and given != set(SCAN_ARRAYS):
        missing = ", ".join(name for name in SCAN_ARRAYS if name not in given)
        raise BundleError(f"golden.npz holds a scan without {missing}")
    return arrays
