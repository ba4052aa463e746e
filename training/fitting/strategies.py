"""Several devices or machines at once, by TensorFlow's distribution strategies."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from training.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a network is built and fitted.

    Attributes:
        replicas: copies of the network that share each batch.
        chief: whether this process writes what the run keeps.
        scope: to be entered around building, loading and fitting.
    """

    replicas: int
    chief: bool
    scope: AbstractContextManager[Any]


def enter(strategy: str) -> Place:
    """Prepares a strategy.

    Args:
        strategy: ``none``; ``mirrored`` for all devices of this machine; ``multiworker`` for
            the machines that the environment variable TF_CONFIG lists.

    Raises:
        DataError: the strategy needs TensorFlow and another Keras backend is set.
    """
    if strategy == "none":
        return Place(replicas=1, chief=True, scope=nullcontext())
    import keras

    if keras.backend.backend() != "tensorflow":
        raise DataError(
            f"--strategy {strategy} is TensorFlow's: set KERAS_BACKEND=tensorflow, or leave it out"
        )
    import tensorflow as tf

    if strategy == "mirrored":
        # Logical devices are what tests split one processor into.
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        names = [device.name for device in tf.config.list_logical_devices(kind)]
        mirrored = tf.distribute.MirroredStrategy(names)
        return Place(replicas=mirrored.num_replicas_in_sync, chief=True, scope=mirrored.scope())
    workers = _workers()
    return Place(
        replicas=workers.num_replicas_in_sync, chief=is_chief(strategy), scope=workers.scope()
    )


def is_chief(strategy: str) -> bool:
    """Whether this process is the one that writes what the run keeps.

    Raises:
        DataError: TF_CONFIG, which tells the workers of each other, is missing or no JSON.
    """
    if strategy != "multiworker":
        return True
    try:
        cluster = json.loads(os.environ["TF_CONFIG"])
        task, workers = cluster["task"], cluster["cluster"]
        role, index = task["type"], int(task["index"])
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            "--strategy multiworker: expected the cluster and this worker's place in it in the "
            "environment variable TF_CONFIG, see TensorFlow's multi-worker training"
        ) from error
    return role == "chief" or (role == "worker" and index == 0 and "chief" not in workers)


def _workers() -> Any:
    import tensorflow as tf

    class Workers(tf.distribute.MultiWorkerMirroredStrategy):  # pyright: ignore[reportUntypedBaseClass]
        """Reduces what Keras 3.15 asks for and TensorFlow's own refuses: batches and scalars."""

        def reduce(self, reduce_op: Any, value: Any, axis: int | None) -> Any:
            """Each tensor of a batch by itself; a scalar has no axis to reduce over."""
            if isinstance(value, tuple):
                return tuple(self.reduce(reduce_op, part, axis) for part in value)
            local = self.experimental_local_results(value)[0]
            return super().reduce(reduce_op, value, axis if local.shape.rank else None)

    return Workers()
