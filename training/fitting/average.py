"""Weights averaged over the steps of a run (Polyak & Juditsky 1992), kept by the optimiser."""

from __future__ import annotations

import keras


class AveragedWeights(keras.callbacks.SwapEMAWeights):
    """Validates and saves the average of the weights, and goes on with the weights themselves.

    Between epochs the network holds the average and the optimiser's state the weights, so that a
    saved network is the averaged one and still resumes. What batch normalisation has seen is no
    weight: its own momentum averages it.
    """

    def __init__(self, *, resumed: bool) -> None:
        """Args: whether the network was loaded as it was saved after an epoch."""
        super().__init__(swap_on_epoch=True)
        self._ema_weights_in_model = resumed
