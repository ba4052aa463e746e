"""A whole valid bundle around a tiny graph: what is dark on average is lung."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from scipy import ndimage

GRID = (256, 256)
CUT_GREY = 70.0
"""Grey level of probability 0.5."""
WIDTH = 9
"""Pixels that are averaged in each direction: noise makes no islands."""


def make_graph(
    *, size: tuple[int, int] = GRID, cut: float = CUT_GREY, steepness: float = 0.1, stride: int = 1
) -> bytes:
    """``mask = sigmoid((cut - mean(image)) * steepness)``, coarser by ``stride`` if asked for."""
    output = (size[0] // stride, size[1] // stride)
    nodes = [
        helper.make_node("Reshape", ["image", "planes"], ["channel_first"]),
        helper.make_node(
            "AveragePool",
            ["channel_first"],
            ["smooth"],
            kernel_shape=[WIDTH, WIDTH],
            pads=[WIDTH // 2] * 4,
            count_include_pad=1,
        ),
        helper.make_node("Reshape", ["smooth", "channels_last"], ["mean"]),
        helper.make_node("Sub", ["cut", "mean"], ["below"]),
        helper.make_node("Mul", ["below", "steepness"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
        helper.make_node("Slice", ["probability", "starts", "ends", "axes", "steps"], ["mask"]),
    ]
    values = {
        "planes": np.array([-1, 1, *size]),
        "channels_last": np.array([-1, *size, 1]),
        "cut": np.float32(cut),
        "steepness": np.float32(steepness),
        "starts": np.array([0, 0]),
        "ends": np.array(size),
        "axes": np.array([1, 2]),
        "steps": np.array([stride, stride]),
    }
    graph = helper.make_graph(
        nodes,
        "standin",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *size, 1])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch", *output, 1])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return model.SerializeToString()


def expected(image: np.ndarray, *, cut: float = CUT_GREY, steepness: float = 0.1) -> np.ndarray:
    """The graph's output, computed by numpy."""
    mean = ndimage.uniform_filter(image.astype(np.float64), (0, WIDTH, WIDTH, 0), mode="constant")
    return (1 / (1 + np.exp(-(cut - mean) * steepness))).astype(np.float32)


def write_bundle(
    folder: Path,
    *,
    name: str = "standin",
    version: str = "1",
    cut: float = CUT_GREY,
    stride: int = 1,
    size: tuple[int, int] = GRID,
    graph: bytes | None = None,
    **contract: object,
) -> Path:
    """Writes ``folder/name/version``; further arguments replace members of the contract."""
    bundle = folder / name / version
    bundle.mkdir(parents=True, exist_ok=True)
    content = make_graph(size=size, cut=cut, stride=stride) if graph is None else graph
    image = np.random.default_rng(0).uniform(0, 255, (1, *size, 1)).astype(np.float32)
    mask = expected(image, cut=cut)[:, ::stride, ::stride]
    (bundle / "model.onnx").write_bytes(content)
    np.savez(bundle / "golden.npz", image=image, mask=mask)
    (bundle / "CARD.md").write_text(f"# {name} {version}\n\nA stand-in for tests.\n")
    members = {
        "name": name,
        "version": version,
        "created": "2026-01-01",
        "sha256": hashlib.sha256(content).hexdigest(),
        "opset": 18,
        "input": {"name": "image", "height": size[0], "width": size[1]},
        "output": {"name": "mask", "height": size[0] // stride, "width": size[1] // stride},
        "metrics": {"phantom.dice": 0.5},
    }
    (bundle / "contract.json").write_text(json.dumps(members | contract))
    return bundle
