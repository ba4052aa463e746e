"""Network, losses and metrics know no backend but Keras."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.conftest import tiny
from training.config import write_config

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.training

NEUTRAL = (
    *("networks/blocks", "networks/encoders", "networks/light", "networks/unet"),
    *("fitting/batches", "fitting/losses", "fitting/schedules", "fitting/transfer"),
)
FIT = """
import sys
from pathlib import Path
from training.config import read_config
from training.fitting.train import train

data, cache, recipe, out = map(Path, sys.argv[1:])
train([data], out, read_config(recipe, {}), cache=cache)
"""
RECIPE = tiny(
    grid=16, depth=1, epochs=3, batch_size=4, learning_rate=0.01, loss="bce_dice",
    schedule="cosine", warmup_epochs=1.0,
)  # fmt: skip
QUICK = "--xla_backend_optimization_level=0"
"""Most of the time goes into compiling a network that computes almost nothing."""


@pytest.mark.parametrize("module", NEUTRAL)
def test_modules_import_no_backend(module: str) -> None:
    """By name: a line that imports TensorFlow, torch or jax would bind the code to it."""
    source = Path("training", f"{module}.py").read_text()
    for backend in ("tensorflow", "torch", "jax"):
        assert f"import {backend}" not in source
        assert f"from {backend}" not in source


def test_jax_fits_what_tensorflow_then_reads(phantoms: Path, cache: Path, tmp_path: Path) -> None:
    """A whole run in a process of its own learns, and its network has the same loss here."""
    from training.data.cache import cache_pieces
    from training.data.material import prepare
    from training.fitting.batches import Batches
    from training.fitting.checkpoints import load_network
    from training.fitting.losses import make_loss

    write_config(RECIPE, tmp_path / "recipe.toml")
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", FIT, phantoms, cache, tmp_path / "recipe.toml", run],
        env=os.environ | {"KERAS_BACKEND": "jax", "XLA_FLAGS": QUICK},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads((run / "provenance.json").read_text())["backend"] == "jax"
    with (run / "history.csv").open(newline="") as stream:
        epochs = list(csv.DictReader(stream))
    losses = [float(epoch["val_loss"]) for epoch in epochs]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == RECIPE.epochs

    assert keras.backend.backend() == "tensorflow"
    held_out = prepare([phantoms], RECIPE, cache=cache).validation
    pieces = cache_pieces(held_out, RECIPE.grid, cache, RECIPE.covers)
    image, truth = Batches(pieces, RECIPE, RECIPE.intensity, epoch=None)[0]
    assert len(image) == len(held_out)  # one batch, whose mean is the epoch's
    loss = make_loss(RECIPE.loss)(truth, load_network(run / "last.keras")(image))
    assert float(loss) == pytest.approx(losses[-1], rel=1e-4)
