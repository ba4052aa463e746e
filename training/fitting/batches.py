"""Streams slices from disk to the network: decoded once, cached by content, varied each epoch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from lungseg.core.preprocess import IntensityRule, to_grey
from training.config import TrainConfig
from training.data.cache import load_piece
from training.synthetic.augment import augment

WORKERS = 2
"""Threads that read and vary slices."""
QUEUE = 8
"""Batches made ahead of the network."""
EARLY = 4
"""Batches of the next epoch made while this one is validated, so that it starts at once."""


class Batches(keras.utils.PyDataset):
    """Batches of grey levels and lung targets, each (N, grid, grid, 1) float32.

    Order and variation follow from the seed, the epoch and the slice alone, so a resumed run
    sees what an unbroken one would have seen.
    """

    def __init__(
        self,
        pieces: Sequence[Path],
        config: TrainConfig,
        rule: IntensityRule,
        *,
        epoch: int | None,
        weights: Sequence[float] | None = None,
        multiple: int = 1,
    ) -> None:
        """Prepares the first epoch.

        Args:
            pieces: cached slices.
            config: the recipe.
            rule: how the model makes grey levels.
            epoch: the first to be asked for; None for slices in order and unvaried.
            weights: how often each slice is drawn in an epoch, once by default.
            multiple: slices are repeated until their number is one of this, so that each of
                several devices gets some of the last batch.
        """
        super().__init__(workers=WORKERS, use_multiprocessing=False, max_queue_size=QUEUE)
        self._pieces, self._config, self._rule, self._epoch = pieces, config, rule, epoch
        self._weights, self._multiple = weights, multiple
        self.drawn = self._shuffled()
        self._early: dict[int, Future[tuple[NDArray[np.float32], NDArray[np.float32]]]] = {}
        self._helper = ThreadPoolExecutor(max_workers=1)
        self.ready_s: dict[int, float] = {}
        """When each batch of the epoch was last finished, on the monotonic clock."""

    @property
    def num_batches(self) -> int:
        """Batches an epoch; the last one may be smaller."""
        return -(-len(self.drawn) // self._config.batch_size)

    def on_epoch_end(self) -> None:
        """Draws and orders the slices of the next epoch, and begins with it during validation."""
        if self._epoch is None:
            return
        self._epoch += 1
        self.drawn = self._shuffled()
        if self._epoch < self._config.epochs:
            self._early = {
                index: self._helper.submit(self._batch, index)
                for index in range(min(EARLY, self.num_batches))
            }

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The batch of that index: grey levels, lung targets."""
        early = self._early.pop(index, None)
        return early.result() if early is not None else self._batch(index)

    def _batch(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        start = index * self._config.batch_size
        chosen = self.drawn[start : start + self._config.batch_size]
        examples = [self._example(number, draw) for number, draw in chosen]
        images, targets = zip(*examples, strict=True)
        batch = np.stack(images)[..., None], np.stack(targets)[..., None]
        self.ready_s[index] = time.monotonic()
        return batch

    def _example(self, number: int, draw: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        piece = load_piece(self._pieces[number])
        if self._epoch is None or not self._config.augment:
            return to_grey(piece.hu, "HU", self._rule), piece.target
        seed = (self._config.seed, self._epoch, number, *([draw] if draw else []))
        return augment(piece, self._config, self._rule, np.random.default_rng(seed))

    def _shuffled(self) -> list[tuple[int, int]]:
        """(slice, how often it was drawn before in this epoch) in the order of the epoch."""
        numbers = np.arange(len(self._pieces))
        drawn = [(int(number), 0) for number in numbers]
        if self._epoch is not None:
            random = np.random.default_rng((self._config.seed, self._epoch))
            drawn = [(int(number), 0) for number in random.permutation(numbers)]
            if self._weights is not None and set(self._weights) != {1.0}:
                drawn = _draw(self._weights, random)
        short = -len(drawn) % self._multiple
        return drawn + [drawn[place % len(drawn)] for place in range(short)]


def _draw(weights: Sequence[float], random: np.random.Generator) -> list[tuple[int, int]]:
    """Systematic resampling: each slice as often as its weight says, the same number in all."""
    order = random.permutation(len(weights))
    heaped = np.cumsum(np.asarray(weights, np.float64)[order])
    total = max(1, round(float(heaped[-1])))
    marks = (np.arange(total) + random.random()) * (heaped[-1] / total)
    numbers = order[np.searchsorted(heaped, marks, side="right")]
    seen: Counter[int] = Counter()
    drawn = []
    for number in random.permutation(numbers).tolist():
        drawn.append((number, seen[number]))
        seen[number] += 1
    return drawn
