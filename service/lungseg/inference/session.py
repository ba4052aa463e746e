"""ONNX Runtime, and nothing else in the service knows it."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

# Since 1.32 its builds keep an id of the machine in the home folder and report to their maker who
# runs which model where. It hears this when it is imported, and never again.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from lungseg.core.types import FloatArray
from lungseg.inference.errors import BundleError

EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
"""ONNX Runtime's name for where the files lie that a graph refers to."""
ON_PROCESSORS = ("CPUExecutionProvider",)
ERRORS_ONLY = 3
"""ONNX Runtime's severity from which it writes to the log: its warnings quote paths."""

_PROBE = (
    b'\x08\x08:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02'
    b"\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x12"
)
"""The smallest ONNX file (y = Relu(x), one float): shows whether providers start at all."""

PACKAGES = {
    "CUDAExecutionProvider": "onnxruntime-gpu",
    "TensorrtExecutionProvider": "onnxruntime-gpu",
    "OpenVINOExecutionProvider": "onnxruntime-openvino",
    "MIGraphXExecutionProvider": "onnxruntime-migraphx",
    "DmlExecutionProvider": "onnxruntime-directml",
    "QNNExecutionProvider": "onnxruntime-qnn",
    "CANNExecutionProvider": "onnxruntime-cann",
}
"""The package of the Python Package Index whose build of ONNX Runtime has a provider."""


class ProviderMissing(ValueError):
    """A provider is asked for that the installed ONNX Runtime or this machine does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """How sessions are opened."""

    providers: tuple[str, ...] = ON_PROCESSORS
    """ONNX Runtime's names, first choice first."""
    intra_op_threads: int = 1
    """Threads of one run, at least 1."""
    alone_threads: int = 1
    """Threads of a run while nothing else is computed; on processors only."""

    @property
    def wider(self) -> Engine | None:
        """How a graph is opened once more, for runs that have the processor to themselves."""
        if self.providers != ON_PROCESSORS or self.alone_threads <= self.intra_op_threads:
            return None
        return replace(self, intra_op_threads=self.alone_threads)

    def check(self) -> None:
        """Makes sure that what is asked for is there, so that nothing falls back in silence.

        Raises:
            ProviderMissing: a provider is not in the installed ONNX Runtime, or cannot start.
        """
        available: list[str] = ort.get_available_providers()
        missing = [name for name in self.providers if name not in available]
        if missing or not self.providers:
            raise ProviderMissing(
                f"expected providers among {', '.join(available)}, "
                f"received {', '.join(missing) or 'none'}{_remedy(missing)}"
            )
        Session(_PROBE, self)


def _remedy(missing: list[str]) -> str:
    """What to do about the first provider that is not there."""
    if not missing:
        return ""
    known: list[str] = ort.get_all_providers()
    by_short_name = {name.removesuffix("ExecutionProvider").lower(): name for name in known}
    short = missing[0].lower().removesuffix("executionprovider")
    nearest = difflib.get_close_matches(short, by_short_name, n=1)
    if missing[0] not in known:
        return f"; did you mean {by_short_name[nearest[0]]}?" if nearest else ""
    if package := PACKAGES.get(missing[0]):
        return f"; pip uninstall onnxruntime, then pip install {package} (docs/gpu.md)"
    return "; it needs another build of ONNX Runtime than the installed one (docs/gpu.md)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """What a graph says of an input or output; free axes are None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class Session:
    """One open ONNX graph with one input and one output, safe to run from several threads."""

    def __init__(self, content: bytes, engine: Engine) -> None:
        """Opens the graph.

        Raises:
            BundleError: ONNX Runtime cannot read it, or it has more inputs or outputs.
            ProviderMissing: a provider is installed, but cannot start on this machine.
        """
        options: Any = ort.SessionOptions()
        options.intra_op_num_threads = engine.intra_op_threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = ERRORS_ONLY
        # Spinning threads burn the cores that decode other requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A tensor may name another file as the place of its values (CVE-2022-25882,
        # CVE-2024-27318). Bundles never need that: below this path there is no file.
        options.add_session_config_entry(EXTERNAL_DATA_FOLDER, os.devnull)
        try:
            session: Any = ort.InferenceSession(content, options, providers=list(engine.providers))
        except Exception:  # noqa: BLE001 - its errors have no common base, and their text quotes paths
            raise BundleError(
                "ONNX Runtime cannot open the graph: it is damaged, or refers to other files"
            ) from None
        started = session.get_providers()
        absent = [name for name in engine.providers if name not in started]
        if absent:
            raise ProviderMissing(
                f"expected {', '.join(absent)} to start, it did not: its libraries, its device or "
                "room on it are missing (docs/gpu.md)"
            )
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise BundleError(
                f"expected one input and one output, received {len(inputs)} and {len(outputs)}"
            )
        self._session = session
        self.input = _tensor(inputs[0])
        self.output = _tensor(outputs[0])
        # The weights are some megabytes; the number of threads belongs to a session, not to a run.
        self._wider = Session(content, engine.wider) if engine.wider else None

    def run(self, grey: FloatArray, *, alone: bool = False) -> FloatArray:
        """From (N, height, width, 1) to (N, output height, output width, 1), both float32.

        Alone, it may take more threads; the output is the same to the last bit.
        """
        if alone and self._wider:
            return self._wider.run(grey)
        (output,) = self._session.run([self.output.name], {self.input.name: grey})
        return np.asarray(output, dtype=np.float32)


def _tensor(node: Any) -> Tensor:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape)
    return Tensor(name=node.name, shape=shape, dtype=node.type)
