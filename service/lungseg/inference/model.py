"""One model version: contract, session and the proof that they belong together."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from lungseg.inference.contract import Contract, TensorSpec
from lungseg.inference.errors import BundleError, BundleUnreadable
from lungseg.inference.golden import check_golden
from lungseg.inference.session import Engine, Session, Tensor

BUNDLE_FILES = ("model.onnx", "contract.json", "golden.npz", "CARD.md")
MAX_SMALL_FILE_BYTES = 64 * 1024 * 1024
"""Contract, card and golden arrays are far smaller; a larger one is a mistake."""
MAX_GRAPH_BYTES = 2 * 1024 * 1024 * 1024
"""No larger message can be read by Protocol Buffers, of which an ONNX graph is one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A loaded model version that has reproduced its golden output.

    Compared by identity: two loads of one folder are two models.
    """

    contract: Contract
    session: Session
    card: str

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
        content = _read(folder, "model.onnx", MAX_GRAPH_BYTES)
        # The very bytes that were hashed are opened: nothing can change in between.
        if hashlib.sha256(content).hexdigest() != contract.sha256:
            raise BundleError("model.onnx has another SHA-256 than contract.json says")
        session = Session(content, engine)
        _check_tensor("input", session.input, contract.input)
        _check_tensor("output", session.output, contract.output)
        check_golden(session.run, contract, _read(folder, "golden.npz"))
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


def _read(folder: Path, name: str, limit: int = MAX_SMALL_FILE_BYTES) -> bytes:
    path = folder / name
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or device might never end
            raise BundleError(f"{name} is no plain file")
        if status.st_size > limit:
            raise BundleError(f"{name} is larger than {limit} bytes")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"{name} is missing") from None
    except OSError as error:
        reason = (error.strerror or "no").lower()
        raise BundleUnreadable(f"{name} cannot be read ({reason})") from None


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
