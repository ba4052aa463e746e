"""Objectives and the Dice metric, written with ``keras.ops`` alone; TensorFlow and JAX run them.

Targets below 0 are codes (``training.data.pieces``): pixels that nobody can tell have no weight in
any of them, and airways, which are no lung and few, have more than others in pixelwise ones.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from training.data.pieces import AIRWAY_TARGET, IGNORED_TARGET

SMOOTH_SHARE = 0.002
"""Of the slice's pixels, added to both sides of the Dice ratio: an empty truth met by an empty
mask scores 1, and a false area of some such shares is still felt. With a single pixel it
hardly is."""


AIRWAY_WEIGHT = 20.0
"""Of a pixel in trachea or main bronchi: they fill a thousandth of a field, and a network that
never hears of them calls most of them lung."""


@keras.saving.register_keras_serializable("lungseg")
class DiceLoss(keras.losses.Loss):
    """1 − soft Dice (Milletari 2016, arXiv 1606.04797) of each slice, averaged."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss of each slice, shape (N,)."""
        axes = (1, 2, 3)
        truth, weight = _known(y_true)
        guess = y_pred * weight
        overlap: Any = ops.sum(truth * guess, axes)
        total: Any = ops.sum(truth + guess, axes)
        shape: Any = ops.shape(y_pred)
        pixels: Any = ops.cast(shape[1] * shape[2], "float32")
        smooth = SMOOTH_SHARE * pixels
        return 1 - (2 * overlap + smooth) / (total + smooth)


@keras.saving.register_keras_serializable("lungseg")
class BceLoss(keras.losses.Loss):
    """Binary cross-entropy of each slice's known pixels, averaged over all of its pixels."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss of each slice, shape (N,)."""
        return _average(keras.losses.binary_crossentropy, y_true, y_pred)


@keras.saving.register_keras_serializable("lungseg")
class FocalLoss(keras.losses.Loss):
    """Focal loss (Lin 2017, arXiv 1708.02002) of each slice's known pixels, as ``BceLoss``."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss of each slice, shape (N,)."""
        return _average(keras.losses.binary_focal_crossentropy, y_true, y_pred)


@keras.saving.register_keras_serializable("lungseg")
class BceDiceLoss(keras.losses.Loss):
    """Binary cross-entropy plus Dice loss."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss of each slice, shape (N,)."""
        return BceLoss().call(y_true, y_pred) + DiceLoss().call(y_true, y_pred)


@keras.saving.register_keras_serializable("lungseg")
class Dice(keras.metrics.Metric):
    """Dice of the thresholded masks over all pixels seen since the reset."""

    def __init__(self, name: str = "dice", **options: object) -> None:
        super().__init__(name=name, **options)
        self.overlap: Any = self.add_weight(name="overlap", initializer="zeros")
        self.total: Any = self.add_weight(name="total", initializer="zeros")

    def update_state(
        self,
        y_true: Any,
        y_pred: Any,
        sample_weight: Any | None = None,
    ) -> None:
        """Adds a batch; soft truths are cut at one half."""
        del sample_weight  # Dice counts pixels; slices have no weight
        _, weight = _known(y_true)
        truth: Any = ops.cast(y_true >= 0.5, "float32")
        guess: Any = ops.cast(y_pred >= 0.5, "float32") * weight
        self.overlap.assign_add(ops.sum(truth * guess))
        self.total.assign_add(ops.sum(truth + guess))

    def result(self) -> Any:
        """The Dice so far; 1 when there was nothing to find and nothing was found."""
        return (2 * self.overlap + 1e-6) / (self.total + 1e-6)


def _known(y_true: Any) -> tuple[Any, Any]:
    """The targets with 0 for codes, and 1 wherever they are known."""
    known: Any = ops.cast(y_true != IGNORED_TARGET, "float32")
    return ops.maximum(ops.cast(y_true, "float32"), 0.0), known


def _average(loss: Any, y_true: Any, y_pred: Any) -> Any:
    truth, known = _known(y_true)
    airway: Any = ops.cast(y_true == AIRWAY_TARGET, "float32")
    weight = known * (1 + (AIRWAY_WEIGHT - 1) * airway)
    return ops.mean(loss(truth, y_pred) * weight[..., 0], axis=(1, 2))


def make_loss(name: str) -> keras.losses.Loss:
    """The objective of that name: ``bce``, ``dice``, ``bce_dice`` or ``focal``."""
    return {
        "bce": BceLoss,
        "dice": DiceLoss,
        "bce_dice": BceDiceLoss,
        "focal": FocalLoss,
    }[name]()
