"""What a slice could have looked like on another scanner, table, window or screen.

Works on pseudo-HU (``training.data.intensity``) on the network's grid, so that a window means the
same on every data set, and ends in the grey levels that serving would make of such a picture.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lungseg.core.preprocess import IntensityRule, to_grey
from lungseg.core.types import AIR_HU
from training.config import TrainConfig
from training.data.intensity import SOFT_TISSUE_HU
from training.data.pieces import Piece, Plane
from training.synthetic.anatomy import (
    consolidated,
    on_ground,
    shrunken,
    with_domes,
    with_effusion,
    with_gas,
    with_streaks,
    without_lungs,
)
from training.synthetic.lumps import with_limbs, with_masses

WINDOW_LOW_HU = (-1400.0, 0.0)
"""Black of a random window: from wide lung windows to narrow ones that clip lung and fat."""
WINDOW_WIDTH_HU = (300.0, 3000.0)
"""White above black: narrow soft-tissue windows to minimum–maximum exports."""
USUAL_WINDOWS_HU = (
    (-1350.0, 150.0),
    (-1200.0, -200.0),
    (-1024.0, 600.0),
    (-450.0, 1050.0),
    (-175.0, 275.0),
    (-160.0, 240.0),
    (-125.0, 225.0),
)
"""What readers use: lung, narrow lung, wide, bone, wide and narrow mediastinum, abdomen; the last
three clip the lung, and are the hardest."""
LUNG_WIDTH_HU = 900.0
"""Width of the narrowest lung windows, in which fat and muscle are both white."""
USUAL_SHARE = 0.65
"""Of the windowed slices; the others get a random window."""
PADDING_HU = (-3500.0, -1000.0)
"""What scanners write outside the field of view; on the scale of ``pseudo_hu``."""
APEX_SCALE = (0.25, 0.75)
"""Share of its diameter that a lung keeps when it is shrunk towards an apex."""
WIDE_ZOOM_SHARE = 0.6
"""Of the slices, how many are zoomed by up to the whole factor; the others by up to its root."""
SMALL_FIELD_SHIFT = 0.3
"""How far the centre of a smaller field of view may move either way, as a share of what it lacks
of the whole one."""
WIDEST_CIRCLE = 1.3
"""Radius of a round field as a share of half the side; beyond √2 the corners are seen too."""
SHARP_RADIUS, SHARP_STRENGTH = (0.5, 2.0), (0.3, 4.0)
"""Pixels of the grid over which a sharp kernel enhances edges, and how much of the difference
to their surroundings it adds: lung and bone kernels, and pictures sharpened after them."""
WHITE_HU = 1000.0
OUTSIDE_HU = (-2048.0, WHITE_HU)
"""What exports put outside the body: scanner padding to a white page."""


def augment(
    piece: Piece, config: TrainConfig, rule: IntensityRule, random: np.random.Generator
) -> tuple[Plane, Plane]:
    """Varies one slice.

    Args:
        piece: the slice.
        config: probabilities and ranges.
        rule: the model's intensity rule.
        random: source of every choice; the same state gives the same result.

    Returns:
        Grey levels in [0, 255] and the target (``Piece.target``), both (height, width) float32.
    """
    piece = _move(_repaint(piece, config, random), config, random)
    if random.random() < config.limb_probability:
        piece = with_limbs(piece, random)  # now that a wide field has room for them
    if random.random() < config.background_probability:
        page = random.choice((AIR_HU, WHITE_HU, random.uniform(*OUTSIDE_HU)), p=(0.4, 0.25, 0.35))
        piece = on_ground(piece, page)
    hu = _reconstruct(piece.hu, config, random)
    return render(hu, config, rule, random), piece.target


def _reconstruct(hu: Plane, config: TrainConfig, random: np.random.Generator) -> Plane:
    """Noise as the dose leaves it, then a kernel: sharp, smooth, or the slice's own."""
    sharp = random.random() < config.sharpen_probability
    radius = np.exp(random.uniform(*np.log(SHARP_RADIUS))) if sharp else 0.0
    strength = np.exp(random.uniform(*np.log(SHARP_STRENGTH))) if sharp else 0.0
    if random.random() < 0.5:
        # The kernel enhances noise as it does edges: what is added is what it leaves as much as.
        spread = np.float32(random.uniform(0, config.noise_hu) / (1 + strength))
        hu = (hu + spread * random.standard_normal(hu.shape, np.float32)).astype(np.float32)
    if sharp:
        smooth = np.asarray(ndimage.gaussian_filter(hu, radius), np.float32)
        return (hu + np.float32(strength) * (hu - smooth)).astype(np.float32)
    if random.random() < 0.25:
        hu = np.asarray(
            ndimage.gaussian_filter(hu, random.uniform(0, config.blur_pixels)), np.float32
        )
    return hu


def render(
    hu: Plane, config: TrainConfig, rule: IntensityRule, random: np.random.Generator
) -> Plane:
    """Shows pseudo-HU as HU in the model's window, uncalibrated, or as an 8-bit picture."""
    kind = random.random()
    if kind < config.raw_probability:
        # Padding that was resized or blurred is not known as such, and leaves lung little contrast.
        skipped = rule.skip_padding and random.random() < 0.5
        rule = replace(rule, skip_padding=skipped)
        return to_grey(hu.astype(np.float32), "grey level", rule)
    if kind >= config.raw_probability + config.window_probability:
        return to_grey(hu.astype(np.float32), "HU", rule)
    low, high = _window(random)
    unit = np.clip((hu - low) / (high - low), 0, 1)
    unit = unit ** np.exp(random.uniform(-1, 1) * np.log(config.gamma))
    grey = to_grey(np.rint(unit * 255).astype(np.float32), "grey level", rule)
    return _mark(grey, random) if random.random() < config.mark_probability else grey


def _window(random: np.random.Generator) -> tuple[float, float]:
    """What becomes black and what becomes white."""
    if random.random() < USUAL_SHARE:
        low, high = USUAL_WINDOWS_HU[random.integers(len(USUAL_WINDOWS_HU))]
        width = (high - low) * np.exp(random.uniform(-0.2, 0.2))
        low += random.uniform(-0.1, 0.1) * width
    else:
        low = random.uniform(*WINDOW_LOW_HU)
        width = np.exp(random.uniform(*np.log(WINDOW_WIDTH_HU)))
    # One that clips tissue shows no lung, unless it is a wide one of lung itself.
    return low, max(low + width, min(low + LUNG_WIDTH_HU, SOFT_TISSUE_HU + 60))


def _move(piece: Piece, config: TrainConfig, random: np.random.Generator) -> Piece:
    """Rotates, mirrors, zooms, stretches and shifts all planes alike."""
    angle = np.deg2rad(random.uniform(-1, 1) * config.rotation_degrees)
    if random.random() < config.turn_probability:
        angle += random.choice((0.5, 1.0, 1.5)) * np.pi
    # Most fields of view differ little; some of them use the whole range.
    zoom = config.zoom if random.random() < WIDE_ZOOM_SHARE else config.zoom**0.5
    scale = np.exp(random.uniform(-1, 1) * np.log(zoom))
    stretch = np.exp(random.uniform(-0.5, 0.5) * np.log(config.stretch))
    mirror = -1.0 if random.random() < config.flip_probability else 1.0
    side = np.array(piece.hu.shape)
    # A small field of view, as of a heart, need not lie in the middle.
    reach = config.shift + SMALL_FIELD_SHIFT * max(0.0, 1 / scale - 1)
    shift = random.uniform(-1, 1, 2) * reach * side
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    matrix = scale * turn @ np.diag([stretch, mirror / stretch])
    centre = (side - 1) / 2
    offset = centre - matrix @ (centre + shift)

    def moved(plane: Plane, outside: float) -> Plane:
        return np.asarray(
            ndimage.affine_transform(plane, matrix, offset, order=1, cval=outside), np.float32
        )

    outside_hu = AIR_HU if random.random() < 0.6 else random.uniform(*PADDING_HU)
    hu = moved(piece.hu, outside_hu)
    planes = (piece.lung, piece.body, piece.ignored, piece.airway)
    shares = [moved(plane, 0.0) for plane in planes]
    if random.random() < config.padding_probability:
        seen = _inside_circle(hu.shape, config.circle, random)
        hu = np.where(seen, hu, np.float32(outside_hu))
        shares = [plane * seen for plane in shares]
    lung, body, ignored, airway = shares
    return Piece(hu=hu, lung=lung, body=body, ignored=ignored, airway=airway)


def _inside_circle(
    shape: tuple[int, ...], least: float, random: np.random.Generator
) -> NDArray[np.bool_]:
    """A scanner's round field of view; a small one cuts the lungs."""
    y, x = (np.linspace(-1, 1, side) for side in shape)
    return y[:, None] ** 2 + x**2 <= random.uniform(least, WIDEST_CIRCLE) ** 2


def _repaint(piece: Piece, config: TrainConfig, random: np.random.Generator) -> Piece:
    """Changes what the body holds, by the given probabilities; at most one change of the lungs."""
    kind = random.random()
    gas = random.random() < config.gas_probability
    for probability, change in (
        (config.no_lung_probability, without_lungs),
        (config.base_probability, with_domes),
        (config.apex_probability, partial(shrunken, scale=APEX_SCALE)),
        (config.opacity_probability, consolidated),
        (config.effusion_probability, with_effusion),
        (config.mass_probability, with_masses),
    ):
        if kind < probability:
            # Where lungs give way to an abdomen, gas is the rule.
            gas = gas or (change in (without_lungs, with_domes) and random.random() < 0.5)
            piece = change(piece, random)
            break
        kind -= probability
    if gas:
        piece = with_gas(piece, random)
    if random.random() < config.streak_probability:
        piece = with_streaks(piece, random)
    return piece


def _mark(grey: Plane, random: np.random.Generator) -> Plane:
    """Burns in bars where screenshots carry text, rulers and frames: near an edge."""
    marked = grey.copy()
    for _ in range(random.integers(1, 6)):
        top, left = (random.random(2) * grey.shape).astype(int)
        height, width = random.integers(1, 6), random.integers(4, 60)
        if random.random() < 0.5:
            height, width = width, height
        if random.random() < 0.5:
            top = random.choice((2, grey.shape[0] - 2 - height))
        else:
            left = random.choice((2, grey.shape[1] - 2 - width))
        marked[max(0, top) : top + height, max(0, left) : left + width] = random.choice((255, 128))
    return marked
