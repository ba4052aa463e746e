"""Gives a bundle its golden scan: a phantom's slice from which the service proves the bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lungseg.inference.contract import Contract
from lungseg.inference.golden import GoldenScan, record
from lungseg.inference.session import Session
from training.synthetic.phantom import make_phantom

GOLDEN = "golden.npz"
SEED = 1
SIZE, SPACING_MM = (288, 320), (1.5, 1.25)
"""Neither square nor of square pixels, and a field that is larger than the body."""
CIRCLE = 0.49
"""Of the field's width: beyond this radius the grey levels are padding."""
GREY_OF_AIR = 3000
"""Above padding, which is 0, lies a wide empty range, as in exports of signed values."""


def golden_scan() -> GoldenScan:
    """The slice: it depends on window, percentiles, padding, spacing and the body's box."""
    phantom = make_phantom(SIZE, seed=SEED, spacing_mm=SPACING_MM)
    y, x = (np.indices(SIZE) + 0.5) / np.reshape(SIZE, (2, 1, 1)) - 0.5
    within = np.hypot(y, x) < CIRCLE
    grey = np.where(within, phantom.hu + 1000 + GREY_OF_AIR, 0)
    return GoldenScan(
        hu=phantom.hu.astype(np.int16), grey=grey.astype(np.uint16), spacing_mm=SPACING_MM
    )


def write_golden(folder: Path, contract: Contract, session: Session) -> None:
    """Writes ``golden.npz`` beside a bundle's graph, in one step."""
    arrays = record(golden_scan(), contract, session.run)
    unfinished = folder / f".{GOLDEN}"
    with unfinished.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    unfinished.replace(folder / GOLDEN)
