"""Fits the U-Net; a killed run goes on from its last whole epoch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import keras

from training.batches import Batches
from training.checkpoints import LAST, Keeper, load_network
from training.config import TrainConfig
from training.losses import Dice, make_loss
from training.progress import InputWait, Report
from training.schedules import learning_rate
from training.strategies import enter
from training.transfer import freeze_encoder, initialise
from training.unet import build_unet


def fit(
    training: Sequence[Path],
    validation: Sequence[Path],
    config: TrainConfig,
    run: Path,
    *,
    weights: Sequence[float] | None = None,
    report: Callable[[str], None] | None = print,
) -> None:
    """Trains until the configured epoch; the network of the best validation Dice is in ``run``.

    Args:
        training: cached slices to learn from.
        validation: cached slices to choose the epoch by.
        config: the recipe.
        run: folder for checkpoints and the history; what it holds is continued. Workers on
            several machines need it on a disk that they share.
        weights: how often each training slice is drawn in an epoch, once by default.
        report: receives one line an epoch, None for silence.

    Raises:
        DataError: the network that the recipe starts from can't be had, or the disk is full.
    """
    place = enter(config.strategy)
    _make_repeatable(config.seed)
    keeper = Keeper(run, patience=config.early_stopping, writes=place.chief)
    done = keeper.progress.epochs_done
    rule = config.intensity
    batches = Batches(training, config, rule, epoch=done, weights=weights, multiple=place.replicas)
    held_out = Batches(validation, config, rule, epoch=None, multiple=place.replicas)
    if not keeper.progress.stopped and done < config.epochs:
        with place.scope:
            model = _network(config, run, done, batches.num_batches)
            if done and report is not None:
                report(f"resumes after epoch {done}")
            lines = Report(config.epochs, report if place.chief else None)
            lines.start_from(keeper.progress.best_dice)
            model.fit(
                batches,
                validation_data=held_out,
                epochs=config.epochs,
                initial_epoch=done,
                shuffle=False,  # the batches know their order
                verbose=cast("Any", 0),  # annotated as text, documented as either
                callbacks=[_Reseed(config.seed), InputWait(batches), keeper, lines],
            )


def _network(config: TrainConfig, run: Path, done: int, steps: int) -> keras.Model:
    """The network to go on with: loaded, or built, initialised, frozen and compiled."""
    if done:
        return load_network(run / LAST, for_fitting=True)
    with _precision(config.mixed_precision):
        model = build_unet(config)
        if config.init_from:
            initialise(model, Path(config.init_from))
        if config.freeze == "encoder":
            freeze_encoder(model)
        rate: Any = learning_rate(config, steps)
        model.compile(
            optimizer=keras.optimizers.Adam(rate),
            loss=make_loss(config.loss),
            metrics=[Dice()],
        )
    return model


@contextmanager
def _precision(kind: str) -> Generator[None]:
    before = keras.config.dtype_policy()
    if kind != "none":
        keras.config.set_dtype_policy(f"mixed_{kind}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _make_repeatable(seed: int) -> None:
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


class _Reseed(keras.callbacks.Callback):
    """Lets an epoch's dropout follow from the seed and the epoch, as a resumed run needs it."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        del logs
        network: Any = self.model
        for layer in network.layers:
            generator = getattr(layer, "seed_generator", None)
            if generator is not None:
                generator.state.assign([self._seed, epoch])
