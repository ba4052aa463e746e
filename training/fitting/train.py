"""From slices to a fitted network; a killed run goes on from its last whole epoch."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import keras

from training.config import TrainConfig, write_config
from training.data.cache import cache_pieces
from training.data.material import prepare, write_material
from training.data.sources import Source
from training.fitting.average import AveragedWeights
from training.fitting.batches import Batches
from training.fitting.checkpoints import Keeper, load_network
from training.fitting.losses import Dice, make_loss
from training.fitting.progress import EpochReport, InputWait
from training.fitting.provenance import provenance
from training.fitting.schedules import learning_rate
from training.fitting.start import inherited, seen_by
from training.fitting.state import CONFIG, LAST, expect_same_recipe, expect_same_split
from training.fitting.strategies import enter, is_chief
from training.fitting.transfer import freeze_encoder, initialise
from training.networks.unet import build_unet


def train(
    sources: Sequence[Source | Path], out: Path, config: TrainConfig, *, cache: Path | None = None
) -> bool:
    """Cleans, splits and fits; returns whether this process is the one that keeps the run.

    Raises:
        DataError: the slices can't be used, or ``out`` holds another run.
    """
    cache = cache or out.parent / ".cache"
    chief = is_chief(config.strategy)
    expect_same_recipe(config, out)
    seen = seen_by(config.init_from)
    material = prepare(sources, config, cache=cache, seen=seen)
    expect_same_split(material, out)
    if chief:
        out.mkdir(parents=True, exist_ok=True)
        write_config(config, out / CONFIG)
        record = provenance(config) | {"inherited": inherited(config.init_from)}
        write_material(material, out, record, seen)
        print(material.describe())
    train_network(
        cache_pieces(material.training, config.grid, cache, config.covers),
        cache_pieces(material.validation, config.grid, cache, config.covers),
        config,
        out,
        weights=[
            pair.weight * material.weights.get(pair.source, 1.0) for pair in material.training
        ],
    )
    return chief


def train_network(
    training: Sequence[Path],
    validation: Sequence[Path],
    config: TrainConfig,
    run: Path,
    *,
    weights: Sequence[float] | None = None,
) -> None:
    """Trains until the configured epoch; the network of the best validation Dice is in ``run``.

    Args:
        training: cached slices to learn from.
        validation: cached slices to choose the epoch by.
        config: the recipe.
        run: folder for checkpoints and the history; what it holds is continued. Workers on
            several machines need it on a disk that they share.
        weights: how often each training slice is drawn in an epoch, once by default.

    Raises:
        DataError: the network that the recipe starts from can't be had, or the disk is full.
    """
    place = enter(config.strategy)
    _make_repeatable(config.seed)
    keeper = Keeper(run, patience=config.early_stopping, writes=place.chief)
    done = keeper.state.epochs_done
    rule = config.intensity
    batches = Batches(training, config, rule, epoch=done, weights=weights, multiple=place.replicas)
    held_out = Batches(validation, config, rule, epoch=None, multiple=place.replicas)
    if not keeper.state.stopped and done < config.epochs:
        with place.scope:
            model = _network(config, run, done, batches.num_batches)
            if done:
                print(f"resumes after epoch {done}")
            averaged = [AveragedWeights(resumed=done > 0)] if config.average_momentum else []
            lines = EpochReport(config.epochs, shown=place.chief)
            lines.start_from(keeper.state.best_dice)
            model.fit(
                batches,
                validation_data=held_out,
                epochs=config.epochs,
                initial_epoch=done,
                shuffle=False,  # the batches know their order
                verbose=cast("Any", 0),  # annotated as text, documented as either
                callbacks=[_Reseed(config.seed), InputWait(batches), *averaged, keeper, lines],
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
            optimizer=keras.optimizers.Adam(
                rate,
                use_ema=config.average_momentum > 0,
                ema_momentum=config.average_momentum,
            ),
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
        network: Any = self.model
        for layer in network.layers:
            generator = getattr(layer, "seed_generator", None)
            if generator is not None:
                generator.state.assign([self._seed, epoch])
