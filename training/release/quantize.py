"""Static int8 quantisation (QDQ, per channel), calibrated on training slices."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import DataError
from training.networks.unet import INPUT_NAME

MAX_DICE_LOSS = 0.002
"""Mean Dice that quantisation may cost; a model that loses more is not published."""
MIN_AGREEMENT = 0.995
"""Mean Dice of the quantised model's masks with the float model's, at least."""
CALIBRATION_SLICES = 64
GOLDEN_DIFFERENCE = 0.1
"""How closely int8 reproduces its golden output on another processor. A last bit of difference
in the float input layer rounds some activations to the next step: 0.035 of probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Cost:
    """What quantisation changed on the validation slices.

    Attributes:
        dice_loss: mean Dice lost against the truth.
        agreement: mean Dice of its masks with the float model's.
        least_agreement: the lowest such Dice.
    """

    dice_loss: float
    agreement: float
    least_agreement: float

    def expect_small(self) -> None:
        """Refuses a quantised model that is another one.

        Raises:
            DataError: with what was lost, and what may be.
        """
        if self.dice_loss > MAX_DICE_LOSS:
            raise DataError(
                f"not published: quantisation costs {self.dice_loss:.4f} Dice, at most "
                f"{MAX_DICE_LOSS} is allowed"
            )
        if self.agreement < MIN_AGREEMENT:
            raise DataError(
                f"not published: quantised masks agree with the float model's to "
                f"{self.agreement:.4f} Dice, at least {MIN_AGREEMENT} is expected"
            )


def quantize_int8(content: bytes, images: Sequence[NDArray[np.float32]]) -> bytes:
    """Quantises a float graph: uint8 activations, int8 weights per channel.

    The input scaling and all from the last convolution on stay in float: they cost nothing, and
    probabilities come in more than some sixty steps, whatever threshold a caller asks for.
    Weights keep to seven bits: processors without VNNI add two products of full bytes in 16
    bits, where they overflow.

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
        nodes = list(onnx.load(str(ready)).graph.node)
        head = max(place for place, node in enumerate(nodes) if "Conv" in node.op_type)
        exact = [node.name for node in (nodes[0], *nodes[head:])]
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
            nodes_to_exclude=exact,
            extra_options={"ActivationSymmetric": False},
        )
        return done.read_bytes()
