"""One process of a distributed training: argument 1 the data, 2 the run, 3 the strategy."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf

from training.config import TrainConfig
from training.fitting.train import train

data, out, strategy = sys.argv[1:]
processor = tf.config.list_physical_devices("CPU")[0]
count = 2 if strategy == "mirrored" else 1
tf.config.set_logical_device_configuration(
    processor, [tf.config.LogicalDeviceConfiguration() for _ in range(count)]
)
train(
    [Path(data)],
    Path(out),
    TrainConfig(
        grid=32, width=2, depth=1, epochs=2, batch_size=8, strategy=strategy, augment=False
    ),
)
