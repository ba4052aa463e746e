"""Static int8 quantisation (QDQ, per channel), calibrated on training slices."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.unet import INPUT_NAME

MAX_DICE_LOSS = 0.002
"""Mean Dice that quantisation may cost; a model that loses more is not published."""
CALIBRATION_SLICES = 64


def quantize_int8(content: bytes, images: Sequence[NDArray[np.float32]]) -> bytes:
    """Quantises a float graph: uint8 activations, int8 weights per channel.

    The input scaling and the final sigmoid stay in float: they cost nothing and decide the
    threshold's exactness. Weights keep to seven bits: processors without VNNI add two products
    of full bytes in 16 bits, where they overflow.

    Args:
        content: the float model.
        images: grey levels to calibrate on, each (1, height, width, 1).
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Slices(CalibrationDataReader):
        def __init__(self) -> None:
            self._images: Iterator[NDArray[np.float32]] = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            image = next(self._images, None)
            return None if image is None else {INPUT_NAME: image}

    with tempfile.TemporaryDirectory() as folder:
        plain, ready, done = (Path(folder) / name for name in ("a.onnx", "b.onnx", "c.onnx"))
        plain.write_bytes(content)
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        first, *_, last = (node.name for node in onnx.load(str(ready)).graph.node)
        quantize_static(
            str(ready),
            str(done),
            Slices(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=[first, last],
            extra_options={"ActivationSymmetric": False},
        )
        return done.read_bytes()
