"""One model version: contract, session and the proof that they belong together."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from lungseg.core.types import FloatArray
from lungseg.inference.contract import Contract, TensorSpec
from lungseg.inference.errors import BundleError
from lungseg.inference.session import Engine, Session, Tensor

BUNDLE_FILES = ("model.onnx", "contract.json", "golden.npz", "CARD.md")
MAX_SMALL_FILE_BYTES = 64 * 1024 * 1024
"""Contract, card and golden arrays are far smaller; a larger one is a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A loaded model version that has reproduced its golden output.

    Compared by identity: two loads of one folder are two models.
    """

    contract: Contract
    session: Session = field(repr=False)
    card: str = field(repr=False)

    @property
    def grid_size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self.contract.input.height, self.contract.input.width

    @classmethod
    def load(cls, folder: Path, engine: Engine) -> Model:
        """Opens a bundle and checks it: hash, names, shapes, golden output.

        The golden run is the warm-up too: memory is allocated and pages are read afterwards.

        Args:
            folder: ``<name>/<version>`` with the files of ``BUNDLE_FILES``.
            engine: how to open sessions.

        Raises:
            BundleError: the folder disagrees with itself, with a sentence that says where.
            ProviderMissing: see ``Session``.
        """
        contract = read_contract(folder)
        card = _read(folder, "CARD.md").decode("utf-8", "replace")
        content = _read(folder, "model.onnx", limit=None)
        # The very bytes that were hashed are opened: nothing can change in between.
        if hashlib.sha256(content).hexdigest() != contract.sha256:
            raise BundleError("model.onnx has another SHA-256 than contract.json says")
        session = Session(content, engine)
        _check_tensor("input", session.input, contract.input)
        _check_tensor("output", session.output, contract.output)
        _check_golden(session, contract, _read(folder, "golden.npz"))
        return cls(contract=contract, session=session, card=card)


def read_contract(folder: Path) -> Contract:
    """Reads ``contract.json`` and checks that it stands in the folder it names.

    Raises:
        BundleError: it is missing, invalid, or names another model or version.
    """
    try:
        contract = Contract.model_validate_json(_read(folder, "contract.json"))
    except ValidationError as error:
        places = sorted({".".join(map(str, item["loc"])) or "root" for item in error.errors()})
        raise BundleError(f"contract.json is invalid at {', '.join(places)}") from None
    said, found = f"{contract.name}/{contract.version}", f"{folder.parent.name}/{folder.name}"
    if said != found:
        raise BundleError(
            f"contract.json names another model or version than its folder: it says {said}, and "
            f"the folder is {found}; whoever renames it changes name and version in contract.json"
        )
    return contract


def _read(folder: Path, name: str, limit: int | None = MAX_SMALL_FILE_BYTES) -> bytes:
    path = folder / name
    try:
        if limit is not None and path.stat().st_size > limit:
            raise BundleError(f"{name} is larger than {limit} bytes")
        return path.read_bytes()
    except OSError:
        raise BundleError(f"{name} is missing or cannot be read") from None


def _check_tensor(role: str, found: Tensor, expected: TensorSpec) -> None:
    shape = (expected.height, expected.width, 1)
    if found.name != expected.name:
        raise BundleError(f"expected an {role} named {expected.name}, received {found.name}")
    if found.dtype != "tensor(float)" or len(found.shape) != 4 or found.shape[1:] != shape:
        raise BundleError(
            f"expected a float {role} of shape (N, {expected.height}, {expected.width}, 1), "
            f"received {found.dtype} {found.shape}"
        )
    if found.shape[0] is not None:
        raise BundleError(f"expected a free batch axis of the {role}, received {found.shape[0]}")


def _check_golden(session: Session, contract: Contract, content: bytes) -> None:
    image, expected = _read_golden(content)
    shapes = [(spec.height, spec.width, 1) for spec in (contract.input, contract.output)]
    if [image.shape[1:], expected.shape[1:]] != shapes or len(image) != len(expected):
        raise BundleError("golden.npz holds arrays of other shapes than the contract's")
    try:
        difference = float(np.abs(session.run(image) - expected).max())
    except Exception:  # noqa: BLE001 - whatever a graph that does not work raises
        raise BundleError("the graph fails on the golden input") from None
    if not difference <= contract.golden.max_abs_difference:  # NaN is refused too
        raise BundleError(
            f"expected the golden output to {contract.golden.max_abs_difference:g}, "
            f"received a difference of {difference:.3g}"
        )


def _read_golden(content: bytes) -> tuple[FloatArray, FloatArray]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as golden:
            image, mask = golden["image"], golden["mask"]
        return image.astype(np.float32), mask.astype(np.float32)
    except Exception:  # noqa: BLE001 - zipfile, zlib and numpy each have their own
        raise BundleError("golden.npz is damaged or lacks the arrays image and mask") from None
