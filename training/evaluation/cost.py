"""What a network costs on this machine's processor, beside the classic U-Net in the same run."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from lungseg.core.preprocess import fit
from lungseg.core.types import Scan
from lungseg.inference.contract import Contract, TensorSpec
from lungseg.inference.model import Model
from lungseg.inference.session import Engine, Session, Tensor
from lungseg.pipeline import Pipeline
from training.config import TrainConfig
from training.evaluation.evaluate import markdown_table
from training.networks.convert import to_onnx
from training.networks.unet import build_unet
from training.synthetic.phantom import make_phantom

CLASSIC = "classic U-Net, width 16"
SLICE_SIZE = (512, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one network takes.

    Attributes:
        name: of the network.
        gflop: 10⁹ floating-point operations a slice, a multiplication and an addition each.
        megabytes: size of the ONNX file, in 10⁶ bytes.
        inference_ms: median of one run of the network, batch 1.
        slice_ms: median from the values of a 512×512 slice to its labelled lungs.
    """

    name: str
    gflop: float
    megabytes: float
    inference_ms: float
    slice_ms: float


def cost(folders: Sequence[Path], *, threads: int, rounds: int) -> list[Cost]:
    """Times networks in turns, so that a busy moment of the machine strikes all alike.

    Args:
        folders: of models.
        threads: of one inference.
        rounds: runs of each.

    Returns:
        The classic float U-Net on 256×256 first (its weights don't matter), then each model.
    """
    contents = {CLASSIC: to_onnx(build_unet(TrainConfig()), {})}
    contents |= {str(folder): (folder / "model.onnx").read_bytes() for folder in folders}
    timers = {name: _timers(content, threads) for name, content in contents.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in contents}
    for _ in range(rounds):
        for name, (infer, whole) in timers.items():
            taken[name].append((_seconds(infer), _seconds(whole)))
    return [
        Cost(
            name=name,
            gflop=gflop(content),
            megabytes=len(content) / 1e6,
            inference_ms=1e3 * statistics.median(pair[0] for pair in taken[name]),
            slice_ms=1e3 * statistics.median(pair[1] for pair in taken[name]),
        )
        for name, content in contents.items()
    ]


def format_cost(costs: Sequence[Cost]) -> str:
    """A table as GitHub-flavoured Markdown; how many times faster than its first row."""
    head = ("network", "GFLOP", "MB", "inference", "faster", "slice to mask", "faster")
    first = costs[0]
    rows = [
        (
            item.name,
            f"{item.gflop:.2f}",
            f"{item.megabytes:.1f}",
            f"{item.inference_ms:.1f} ms",
            f"{first.inference_ms / item.inference_ms:.1f}×",
            f"{item.slice_ms:.1f} ms",
            f"{first.slice_ms / item.slice_ms:.1f}×",
        )
        for item in costs
    ]
    return markdown_table(head, rows)


def gflop(content: bytes) -> float:
    """Operations of the convolutions of an ONNX graph for a batch of one, in 10⁹.

    Everything else is small beside them.
    """
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(content)).graph
    shapes: dict[str, list[int]] = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        # Only the batch is free, and it is one.
        shapes[value.name] = [axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim]
    return sum(_operations(node, shapes) for node in graph.node) / 1e9


def _operations(node: Any, shapes: Mapping[str, list[int]]) -> int:
    if node.op_type not in ("Conv", "ConvTranspose"):
        return 0
    # Every weight meets every place of the output, or of the input where the stride enlarges.
    places = shapes[node.output[0] if node.op_type == "Conv" else node.input[0]]
    return 2 * math.prod(shapes[node.input[1]]) * math.prod(places[2:])


def _timers(content: bytes, threads: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Runs the network alone, and the pipeline from a decoded slice to its labels."""
    session = Session(content, Engine(intra_op_threads=threads))
    contract = Contract(
        name="timed",
        version="1",
        created="",
        sha256=hashlib.sha256(content).hexdigest(),
        opset=0,
        input=_spec(session.input),
        output=_spec(session.output),
    )
    model = Model(contract=contract, session=session, card="")
    values = make_phantom(SLICE_SIZE).hu[None]
    scan = Scan(values=values, unit="HU", media_type="application/dicom")
    grey = fit(scan, model.grid_size, contract.intensity).grey
    return lambda: session.run(grey), lambda: Pipeline().find_lungs(scan, model)


def _spec(tensor: Tensor) -> TensorSpec:
    return TensorSpec(
        name=tensor.name, height=int(tensor.shape[1] or 0), width=int(tensor.shape[2] or 0)
    )


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
