"""Network, losses and metrics know no backend but Keras."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.training

NEUTRAL = (
    *("networks/blocks", "networks/encoders", "networks/light", "networks/unet"),
    *("fitting/batches", "fitting/losses", "fitting/schedules", "fitting/transfer"),
)
STEP = """
import numpy as np
import keras
from training.config import TrainConfig
from training.fitting.losses import Dice, make_loss
from training.fitting.schedules import learning_rate
from training.networks.unet import build_unet

config = TrainConfig(grid=32, width=2, depth=2, schedule="cosine", warmup_epochs=1.0, epochs=4)
assert keras.backend.backend() == "torch"
network = build_unet(config)
rate = learning_rate(config, 2)
network.compile(keras.optimizers.Adam(rate), loss=make_loss("bce_dice"), metrics=[Dice()])
random = np.random.default_rng(0)
image = random.uniform(0, 255, (4, 32, 32, 1)).astype("float32")
truth = (image > 128).astype("float32")
losses = [float(network.train_on_batch(image, truth)[0]) for _ in range(8)]
assert losses[-1] < losses[0], losses
"""


@pytest.mark.parametrize("module", NEUTRAL)
def test_modules_import_no_backend(module: str) -> None:
    """By name: a line that imports TensorFlow, torch or jax would bind the code to it."""
    source = Path("training", f"{module}.py").read_text()
    for backend in ("tensorflow", "torch", "jax"):
        assert f"import {backend}" not in source
        assert f"from {backend}" not in source


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_another_backend_trains_the_same_code() -> None:
    """Some steps under torch, in a process of its own, lower the loss."""
    done = subprocess.run(
        [sys.executable, "-c", STEP],
        env=os.environ | {"KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
