"""Changes what a slice shows so that the truth stays known: lungs removed, shrunk, filled.

Real collections hold few apices, bases, abdomens and dense lungs; these functions make them
from mid-chest slices, for augmentation (``augment``) and for the stress set (``stress_set``). All
lengths are shares of the slice's side, so any size will do. Slices must be upright (the front of
a patient on their back is up): gas rises, fluid sinks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy import ndimage

from training.data.pieces import Piece, Plane
from training.synthetic.brushes import blend, blurred, cloud, ellipse, grown, noise

FAT_HU = -100.0
METAL_HU = 3000.0
ORGAN_HU = (50.0, 130.0)
"""Liver, spleen and kidneys, from native to enhanced: what lies where no lung is."""
GROUND_GLASS_HU = (-700.0, -300.0)
CONSOLIDATION_HU = (0.0, 40.0)
FLUID_HU = (-5.0, 25.0)
"""What fills a lung that stays lung. Not fat, which is never lung, and below the organs: a truth
that nobody could see in the slice would teach chance."""
SOFT_HU = 30.0
"""Of the walls between airspaces: what a lung without air would be."""
MOST_BUBBLES = 5  # of gas in one slice
SECTORS = 180
"""Directions in which the distance of the skin is taken."""
UNDER_SKIN = 0.96
"""Share of that distance within which a shrinking chest moves."""


def without_lungs(piece: Piece, random: np.random.Generator) -> Piece:
    """Paints the lungs out, and half of the time all that lies between them: an abdomen."""
    side = piece.hu.shape[0]
    cover = grown(piece.lung, 0.012 * side)
    if random.random() < 0.5:
        hull = blurred(piece.lung, 0.12 * side) > 0.12
        cover = np.maximum(cover, grown(hull.astype(np.float32), 0.012 * side))
    return replace(
        piece,
        hu=blend(piece.hu, _tissue(piece.hu.shape, random), cover * piece.body),
        lung=np.zeros_like(piece.lung),
        airway=piece.airway * (1 - cover),
    )


def shrunken(piece: Piece, random: np.random.Generator, scale: tuple[float, float]) -> Piece:
    """Draws all that the chest wall holds towards the lungs' common centre, as at the apices.

    The wall fills the room as shoulders do; the skin stays where it is. Painting tissue around
    a small lung would look like fluid around it, and that is lung.

    Args:
        piece: the slice.
        random: source of every choice.
        scale: least and greatest share of its extent that the lungs keep.
    """
    if not piece.lung.any():
        return piece
    centre = np.array(ndimage.center_of_mass(piece.lung))
    y, x = (np.indices(piece.hu.shape, np.float32).T - centre.astype(np.float32)).T
    distance = np.hypot(y, x)
    sector = ((np.arctan2(y, x) / (2 * np.pi) + 0.5) * SECTORS).astype(int) % SECTORS
    skin = ndimage.maximum(distance, np.where(piece.body > 0.5, sector, -1), range(SECTORS))
    # Clearly under the skin: what is stretched most must not be air.
    skin = ndimage.minimum_filter1d(np.maximum(skin, 1.0), 9, mode="wrap")
    skin = UNDER_SKIN * ndimage.uniform_filter1d(skin, 9, mode="wrap")[sector]
    depth = np.clip(distance / skin, 0, 1)  # 0 in the centre, 1 at the skin
    edge = min(0.95, float(np.percentile(depth[piece.lung > 0.5], 98)))
    power = np.log(1 - edge) / np.log(1 - edge * random.uniform(*scale))
    stretch = (1 - (1 - depth) ** power) / np.maximum(depth, 1e-3)
    where = np.stack([centre[0] + y * stretch, centre[1] + x * stretch])
    hu, lung, ignored, airway = (
        np.asarray(ndimage.map_coordinates(plane, where, order=1, mode="nearest"), np.float32)
        for plane in (piece.hu, piece.lung, piece.ignored, piece.airway)
    )
    return replace(piece, hu=hu, lung=lung, ignored=ignored, airway=airway)


def with_domes(piece: Piece, random: np.random.Generator) -> Piece:
    """Lets diaphragm, liver and stomach rise into the lungs, as at the bases: less lung."""
    hu, lung = piece.hu, piece.lung
    density = random.uniform(*ORGAN_HU)
    for one in _sides(piece.lung):
        if random.random() < 0.25:
            continue
        rows, columns = (np.flatnonzero(one.any(axis=axis)) for axis in (1, 0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        centre = np.array([rows.mean(), columns.mean()])
        centre += random.uniform(-0.3, 0.3, 2) * (height, width)
        radii = random.uniform(0.25, 0.65, 2) * (height, width)
        dome = ellipse(piece.hu.shape, centre, radii, random) * one
        texture = density + cloud(hu.shape, random) * 12 + noise(hu.shape, random)
        hu, lung = blend(hu, texture, dome), lung - dome
    return replace(piece, hu=hu, lung=np.clip(lung, 0, 1).astype(np.float32))


def with_gas(piece: Piece, random: np.random.Generator) -> Piece:
    """Blows gas into bowel and stomach, anywhere in the body but in the lungs."""
    side = piece.hu.shape[0]
    room = piece.body * (1 - grown(piece.lung, 0.02 * side))
    places = np.argwhere(room[::4, ::4] > 0.9) * 4
    hu = piece.hu
    for _ in range(int(random.integers(1, MOST_BUBBLES + 1)) if len(places) else 0):
        centre = places[random.integers(len(places))].astype(float)
        radii = side * random.uniform(0.015, 0.09) * random.uniform(0.5, 1.0, 2)
        bubble = ellipse(hu.shape, centre, radii, random) * room
        if random.random() < 0.4:  # fluid below, with a level
            level = centre[0] + random.uniform(-0.4, 0.6) * radii[0]
            bubble = bubble * (np.arange(side) < level)[:, None]
        content = np.full(hu.shape, random.uniform(-1000, -800))
        if random.random() < 0.3:  # faeces
            content = random.uniform(-700, -100) + 150 * cloud(hu.shape, random, cells=40)
        hu = blend(hu, content, bubble)
    return replace(piece, hu=hu)


def expired(piece: Piece, random: np.random.Generator) -> Piece:
    """Takes air out of all of the lungs, most at the back, as breathing out or diffuse disease do.

    At most two thirds of it, down to what ground glass is at its densest.
    """
    rows = np.flatnonzero(piece.lung.any(axis=1))
    if not len(rows):
        return piece
    depth = np.clip((np.arange(len(piece.lung)) - rows[0]) / max(1, np.ptp(rows)), 0, 1)
    loss = random.uniform(0.05, 0.4) + random.uniform(0, 0.27) * depth[:, None]
    return replace(piece, hu=blend(piece.hu, np.full_like(piece.hu, SOFT_HU), loss * piece.lung))


def consolidated(piece: Piece, random: np.random.Generator) -> Piece:
    """Fills clouds of the lungs with ground glass or consolidation, some air left in the bronchi.

    They stay lung. Ground glass takes up to two thirds of the lungs, consolidation a third: where
    no lung is left to be seen, no single slice tells a solid lung from an abdomen.
    """
    # A cloud's values are standard normal: above 0.4 lies a third of it, above -0.5 two thirds.
    dense = random.random() < 0.5
    levels, densities = ((0.4, 1.2), CONSOLIDATION_HU) if dense else ((-0.5, 1.0), GROUND_GLASS_HU)
    clouds = cloud(piece.hu.shape, random)
    amount = np.clip((clouds - random.uniform(*levels)) * 3, 0, 1) * piece.lung
    amount *= 1 - np.clip(cloud(piece.hu.shape, random, cells=48) - 0.8, 0, 0.8)
    paint = np.maximum(piece.hu, random.uniform(*densities) + noise(piece.hu.shape, random))
    return replace(piece, hu=blend(piece.hu, paint, amount))


def with_effusion(
    piece: Piece, random: np.random.Generator, share: tuple[float, float] = (0.08, 0.3)
) -> Piece:
    """Fills the back of the lungs with fluid that rises at the wall; it stays lung.

    Args:
        piece: the slice.
        random: source of every choice.
        share: least and greatest share of a lung's height that is fluid in its middle.
    """
    rows, columns = np.indices(piece.hu.shape, np.float32)
    hu = piece.hu
    for one in _sides(piece.lung):
        if random.random() < 0.3:
            continue
        tall, wide = (np.flatnonzero(one.any(axis=axis)) for axis in (1, 0))
        level = tall[-1] - random.uniform(*share) * np.ptp(tall)
        meniscus = 0.12 * np.ptp(tall) * ((columns - wide.mean()) / max(1, np.ptp(wide) / 2)) ** 2
        fluid = np.clip(rows - level + meniscus, 0, 1) * one
        hu = blend(hu, random.uniform(*FLUID_HU) + noise(hu.shape, random), fluid)
    return replace(piece, hu=hu)


def with_streaks(piece: Piece, random: np.random.Generator) -> Piece:
    """Adds a piece of metal and the streaks that it casts."""
    height, width = piece.hu.shape
    places = np.argwhere(piece.body[::4, ::4] * (1 - piece.lung[::4, ::4]) > 0.9) * 4
    if not len(places):
        return piece
    row, column = places[random.integers(len(places))]
    y, x = np.arange(height)[:, None] - row, np.arange(width) - column
    angle, distance = np.arctan2(y, x), np.hypot(y, x) / height
    rays = sum(
        np.sin(2 * random.integers(1, 12) * angle + random.uniform(0, 2 * np.pi)) for _ in range(4)
    )
    streaks = random.uniform(60, 250) * rays * np.exp(-distance / 0.35)
    metal = distance < random.uniform(0.008, 0.02)
    return replace(piece, hu=np.where(metal, METAL_HU, piece.hu + streaks).astype(np.float32))


def on_ground(piece: Piece, outside_hu: float) -> Piece:
    """Puts one value everywhere outside the body: no table, no air, a page."""
    return replace(piece, hu=blend(np.full_like(piece.hu, outside_hu), piece.hu, piece.body))


def _sides(lung: Plane) -> Iterator[Plane]:
    """What is lung left and right of the lungs' common centre, if it is enough to speak of."""
    total = float(lung.sum())
    if not total:
        return
    middle = float((lung.sum(axis=0) * np.arange(lung.shape[1])).sum()) / total
    left = np.arange(lung.shape[1]) < middle
    for columns in (left, ~left):
        one = lung * columns
        if one.sum() > 0.05 * total:
            yield one


def _tissue(shape: tuple[int, ...], random: np.random.Generator) -> Plane:
    """Organs of one density with fat between them."""
    organ = random.uniform(*ORGAN_HU) + 12 * cloud(shape, random)
    fat = np.clip((cloud(shape, random, cells=16) - random.uniform(0.2, 2.5)) * 4, 0, 1)
    return (organ * (1 - fat) + FAT_HU * fat + noise(shape, random)).astype(np.float32)
