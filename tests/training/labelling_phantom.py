"""A chest in three dimensions, apex to abdomen, as DICOM slices with known lungs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.synthetic.phantom import Phantom, write_dicom

SLICES, ROWS, COLUMNS = 44, 120, 150
STEP_MM, PIXEL_MM = 5.0, 2.5
BODY, LUNG, AIR, TISSUE, BONE = -90, -860, -1000, 50, 450
CARINA, DIAPHRAGM = 24, 12
"""Slices: the trachea lies above the first, bowel and liver below the second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chest:
    """A volume, feet first, and what is where in it; shape (Z, Y, X)."""

    hu: np.ndarray
    lung: np.ndarray
    airway: np.ndarray
    bowel: np.ndarray
    consolidation: np.ndarray


def make_chest(*, seed: int = 0) -> Chest:
    """Two lungs with vessels, trachea and bronchi, gas in the stomach, a consolidated lobe."""
    z, y, x = np.indices((SLICES, ROWS, COLUMNS)).astype(np.float32)
    y, x = (y - ROWS / 2) * PIXEL_MM, (x - COLUMNS / 2) * PIXEL_MM

    def ball(cz: float, cy: float, cx: float, rz: float, ry: float, rx: float) -> np.ndarray:
        return ((z - cz) / rz) ** 2 + ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1

    body = (y / 110) ** 2 + (x / 165) ** 2 <= 1
    lung = ball(24, 5, -75, 17, 75, 50) | ball(24, 5, 75, 17, 75, 50)
    lung &= ~ball(4, 0, -75, 13, 70, 60)  # the right dome of the diaphragm
    trachea = (z >= CARINA) & ((y - 5) ** 2 + x**2 <= 9**2)
    below = CARINA - z
    bronchi = (below > 0) & (below <= 5) & (
        ((y - 5) ** 2 + (np.abs(x) - 6 * below) ** 2) <= 7**2
    )  # fmt: skip
    airway = trachea | bronchi
    lung &= ~airway
    bowel = ball(6, -55, 30, 4, 22, 40) & ~lung
    consolidation = lung & ball(17, 50, 75, 6, 40, 45)
    hu = np.full(z.shape, AIR, np.float32)
    hu[body] = TISSUE
    hu[body & ((y / 100) ** 2 + (x / 152) ** 2 > 1)] = BODY
    hu[(y - 85) ** 2 + x**2 <= 15**2] = BONE
    hu[lung] = LUNG
    hu[lung & ((y - 10) ** 2 + (np.abs(x) - 70) ** 2 <= 4**2)] = TISSUE
    hu[consolidation] = TISSUE - 10
    hu[airway | bowel] = AIR + 5
    hu += np.random.default_rng(seed).normal(0, 15, hu.shape)
    hu = np.clip(np.rint(hu), -1024, 3000)
    return Chest(hu=hu, lung=lung, airway=airway, bowel=bowel, consolidation=consolidation)


def write_chest(chest: Chest, folder: Path, *, step_mm: float = STEP_MM) -> None:
    """Writes the slices as one series, their names in another order than their positions."""
    folder.mkdir()
    for index, plane in enumerate(chest.hu):
        _write(plane, folder / f"{name_of(index)}.dcm", index * step_mm)


def write_slice(plane: np.ndarray, folder: Path) -> None:
    """Writes one slice alone."""
    folder.mkdir()
    _write(plane, folder / f"{name_of(0)}.dcm", 0.0)


def _write(plane: np.ndarray, path: Path, position_mm: float) -> None:
    empty = np.zeros(plane.shape, bool)
    phantom = Phantom(hu=plane, right=empty, left=empty, spacing_mm=(PIXEL_MM, PIXEL_MM))
    position = [0, 0, position_mm]
    write_dicom(phantom, path, SeriesInstanceUID="2.25.1", ImagePositionPatient=position)


def name_of(index: int) -> str:
    """The stem of a slice: 7 and 44 have no factor in common, so each slice has its own."""
    return f"{index * 7 % SLICES:03d}"
