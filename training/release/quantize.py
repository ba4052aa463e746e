"""Static int8 quantisation (QDQ, per channel), calibrated on training slices."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.core.preprocess import fit
from lungseg.inference.model import Model
from training.config import TrainConfig
from training.data.dataset import Pair, read_sample
from training.data.intensity import pseudo_hu
from training.errors import DataError
from training.evaluation.evaluate import SliceResult, predict
from training.evaluation.metrics import dice_of
from training.networks.unet import INPUT_NAME
from training.synthetic.views import STANDARD_WINDOWS_HU, through_window

CONVOLUTIONS = ("Conv", "ConvTranspose")
MAX_DICE_LOSS = 0.002
"""Mean Dice that quantisation may cost; a model that loses more is not published."""
MIN_AGREEMENT = 0.995
"""Mean Dice of the quantised model's masks with the float model's, at least."""
CALIBRATION_SLICES = 64
"""As many training slices, each in several views."""
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


def calibration_views(pairs: Sequence[Pair], config: TrainConfig) -> Iterator[NDArray[np.float32]]:
    """Some slices as the network sees them in serving: as they are, as HU and as pictures.

    Args:
        pairs: what was learnt from; never what validates.
        config: the grid and the grey levels.
    """
    windows = [through_window(*window) for window in STANDARD_WINDOWS_HU]
    for pair in pairs[:: max(1, len(pairs) // CALIBRATION_SLICES)]:
        sample = read_sample(pair)
        hu = replace(sample.scan, values=pseudo_hu(sample.scan)[None], unit="HU", white=None)
        scans = [sample.scan, *(view(sample).scan for view in windows)]
        scans += [] if sample.scan.unit == "HU" else [hu]
        for scan in scans:
            size = (config.grid, config.grid)
            yield fit(scan, size, config.intensity, covers=config.covers).grey


def int8_cost(
    float_model: Model | None, model: Model, results: Sequence[SliceResult]
) -> Int8Cost | None:
    """Compares a quantised model with the float model that it was made from, if it was."""
    if float_model is None:
        return None
    losses, agreement = [], []
    for result in results:
        sample = read_sample(result.pair)
        as_float, as_int8 = (predict(one, sample.scan).mask[0] for one in (float_model, model))
        known = ~sample.ignored
        losses.append(dice_of(as_float & known, sample.mask) - result.metrics.dice)
        agreement.append(dice_of(as_int8 & known, as_float & known))
    cost = Int8Cost(
        dice_loss=float(np.mean(losses)),
        agreement=float(np.mean(agreement)),
        least_agreement=min(agreement),
    )
    cost.expect_small()
    return cost


def quantize_int8(content: bytes, images: Sequence[NDArray[np.float32]]) -> bytes:
    """Quantises a float graph: uint8 activations, int8 weights per channel.

    What lies before the first convolution stays in float, and all from the last one on: logits
    of few steps would leave few probabilities, and a caller's threshold would move in jumps.
    Weights keep to seven bits: processors without VNNI add two products
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
        kept = _float_nodes(onnx.load(str(ready)).graph)
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
            nodes_to_exclude=kept,
            extra_options={"ActivationSymmetric": False},
        )
        return done.read_bytes()


def _float_nodes(graph: Any) -> list[str]:
    """Nodes before the first convolution, and those from the last one to each output."""
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    ends = [makers[output.name] for output in graph.output]
    kept: list[str] = []
    while ends:
        node = ends.pop()
        kept.append(node.name)
        if node.op_type not in CONVOLUTIONS:
            ends += [makers[name] for name in node.input if name in makers]
    heads = [node for given in graph.input for node in readers.get(given.name, ())]
    while heads:
        node = heads.pop()
        if node.op_type not in CONVOLUTIONS:
            kept.append(node.name)
            heads += [reader for name in node.output for reader in readers.get(name, ())]
    return sorted(set(kept))
