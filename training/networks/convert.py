"""Keras to ONNX, with names, a free batch axis, metadata and the proof of agreement."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lungseg.inference.session import Engine, Session
from training.errors import DataError
from training.networks.unet import INPUT_NAME

OPSET = 18
BATCH_AXIS = "batch"
MAX_PARITY_DIFFERENCE = 1e-4
"""Largest difference of a probability between Keras and ONNX Runtime that is published."""


def to_onnx(model: keras.Model, metadata: Mapping[str, str]) -> bytes:
    """Converts a network to ONNX; the division by 255 stays inside the graph.

    Args:
        model: grey levels (N, height, width, 1) in, probabilities out.
        metadata: texts to keep in the file.

    Returns:
        The serialised graph, checked by the ONNX checker.
    """
    import onnx
    import tensorflow as tf
    import tf2onnx

    shape = (None, *model.inputs[0].shape[1:])
    signature = (tf.TensorSpec(shape, tf.float32, name=INPUT_NAME),)
    graph, _ = tf2onnx.convert.from_keras(model, input_signature=signature, opset=OPSET)
    _name_batch_axis(graph)
    onnx.helper.set_model_props(graph, dict(metadata))
    onnx.checker.check_model(graph, full_check=True)
    return graph.SerializeToString()


def parity(model: keras.Model, content: bytes, images: Iterable[NDArray[np.float32]]) -> float:
    """The largest difference between Keras and ONNX Runtime over some slices.

    Args:
        model: the network as trained.
        content: the network as exported.
        images: grey levels, each (1, height, width, 1).

    Raises:
        DataError: they differ by more than ``MAX_PARITY_DIFFERENCE``.
    """
    session = Session(content, Engine())
    largest = 0.0
    for image in images:
        expected = np.asarray(keras.ops.convert_to_numpy(model(image, training=False)))
        found = np.abs(session.run(image) - expected).max()
        largest = float(np.maximum(largest, found))  # NaN stays
    if not largest <= MAX_PARITY_DIFFERENCE:
        raise DataError(
            f"Keras and ONNX Runtime differ by {largest:.2g}, expected at most "
            f"{MAX_PARITY_DIFFERENCE:g}: not published"
        )
    return largest


def write_triton_config(folder: Path, name: str, session: Session) -> None:
    """Writes ``config.pbtxt`` beside the versions: a model repository for Triton and KServe."""

    def tensor(role: str, node: Any) -> str:
        dims = ", ".join(str(size) for size in node.shape[1:])
        entry = f"name: {json.dumps(node.name)}, data_type: TYPE_FP32, dims: [{dims}]"
        return f"{role} [{{ {entry} }}]\n"

    text = f'name: {json.dumps(name)}\nplatform: "onnxruntime_onnx"\nmax_batch_size: 16\n'
    text += tensor("input", session.input) + tensor("output", session.output)
    (folder / "config.pbtxt").write_text(text + "dynamic_batching { }\n")


def _name_batch_axis(graph: Any) -> None:
    """Gives the free first axis its name; tf2onnx calls it unk__ and a number."""
    for node in (*graph.graph.input, *graph.graph.output):
        node.type.tensor_type.shape.dim[0].dim_param = BATCH_AXIS
