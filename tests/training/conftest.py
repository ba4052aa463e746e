"""Tiny data sets and networks: no test here needs a real slice or a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.config import TrainConfig
from training.data.clean import body_and_dark
from training.data.pieces import Piece
from training.synthetic.phantom import make_phantom
from training.synthetic.phantom_set import write_phantom_set


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty slices of ten patients, 64 × 64: 16 to learn from, 4 to validate."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    write_phantom_set(folder, count=20, patients=10, side=64)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where decoded slices are kept between the tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def piece() -> Piece:
    """A phantom chest of known anatomy."""
    phantom = make_phantom((120, 128), seed=2)
    body, _ = body_and_dark(phantom.hu)
    lung, body = phantom.lungs.astype(np.float32), body.astype(np.float32)
    none = np.zeros_like(lung)
    hu = phantom.hu.astype(np.float32)
    return Piece(hu=hu, lung=lung, body=body, ignored=none, airway=none)


def tiny(**changes: Any) -> TrainConfig:
    """A network of some hundred parameters."""
    recipe: dict[str, Any] = {"grid": 32, "width": 2, "depth": 2, "epochs": 2, "batch_size": 8}
    return TrainConfig(**(recipe | changes))
