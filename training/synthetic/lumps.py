"""Paints lumps of soft tissue: tumours in the lungs, which stay lung, and limbs beside the body.

The truth stays as it is: a tumour lies inside the pleura, and the air between an arm and the
chest is outside the body.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.pieces import Piece, Plane
from training.synthetic.anatomy import FAT_HU
from training.synthetic.brushes import blend, cloud, ellipse, noise

MASS_HU = (10.0, 90.0)
"""Tumours, from native to enhanced."""
MASS_RADIUS, MOST_MASSES = (0.015, 0.1), 3
"""As a share of the side: from some six to some forty millimetres."""
LEAST_INSIDE = 0.6
"""Of a tumour, what lies in the lungs: one that looks in from outside is the dome of the liver."""
MOST_SOLID = 0.35
"""Of the lungs, what tumours may fill: beyond that nobody could tell a lung from an abdomen."""
LIMB_RADIUS, MOST_LIMBS = (0.1, 0.45), 6
"""As a share of the body's size, the root of its area: from a hand to an arm that lies along."""
THINNEST = 0.3
"""Breadth of a limb as a share of its length."""
LIMB_REACH = 0.4
"""How far from the skin the middle of a limb may lie, as a share of the body's size."""
MUSCLE_HU, BONE_HU = 50.0, 700.0
MUSCLE_SHARE, BONE_SHARE = (0.7, 0.97), (0.15, 0.4)
"""Of a limb's radius: what fat surrounds, and what is bone."""


def with_masses(piece: Piece, random: np.random.Generator) -> Piece:
    """Lets up to three tumours grow anywhere in the lungs."""
    places = np.argwhere(piece.lung > 0.5)
    if not len(places):
        return piece
    shape, hu, solid = piece.hu.shape, piece.hu, np.zeros_like(piece.lung)
    for _ in range(int(random.integers(1, MOST_MASSES + 1))):
        centre = places[random.integers(len(places))].astype(float)
        radius = np.exp(random.uniform(*np.log(MASS_RADIUS))) * shape[0]
        radii = radius * random.uniform(0.6, 1.0, 2)
        whole = ellipse(shape, centre, radii, random)
        mass = whole * piece.lung
        together = np.maximum(solid, mass)
        inside = mass.sum() >= LEAST_INSIDE * whole.sum()
        if not inside or together.sum() > MOST_SOLID * piece.lung.sum():
            continue
        solid = together
        texture = random.uniform(*MASS_HU) + 10 * cloud(shape, random) + noise(shape, random)
        hu = blend(hu, np.maximum(hu, texture), mass)
    return replace(piece, hu=hu)


def with_limbs(piece: Piece, random: np.random.Generator) -> Piece:
    """Puts up to six limbs of fat, muscle and bone beside the body, with air between them."""
    shape = piece.hu.shape
    outside = piece.body < 0.5
    if outside.all() or not outside.any():
        return piece
    distance: NDArray[np.float64] = np.asarray(ndimage.distance_transform_edt(outside))
    size = float(np.sqrt((~outside).sum()))
    places = np.argwhere(outside & (distance < LIMB_REACH * size))
    room: Plane = 1 - piece.body
    hu, body = piece.hu, piece.body
    for _ in range(int(random.integers(1, MOST_LIMBS + 1))):
        centre = places[random.integers(len(places))].astype(float)
        radius = np.exp(random.uniform(*np.log(LIMB_RADIUS))) * size
        radii = radius * random.permutation([1.0, random.uniform(THINNEST, 1.0)])
        for content, share in (
            (FAT_HU, 1.0),
            (MUSCLE_HU, random.uniform(*MUSCLE_SHARE)),
            (BONE_HU, random.uniform(*BONE_SHARE)),
        ):
            part = ellipse(shape, centre, share * radii, random) * room
            hu = blend(hu, content + noise(shape, random), part)
            body = np.maximum(body, part)
    return replace(piece, hu=hu, body=body.astype(np.float32))
