"""Masks as polygons with holes along the pixels' edges: exact, and valid for GeoJSON readers.

Pixel (row r, column c) covers the square from (c, r) to (c + 1, r + 1), x before y, so that
the polygons' area is the number of pixels and nothing is lost or smoothed.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from lungseg.core.runs import label_regions
from lungseg.core.types import BoolArray

Ring = list[tuple[int, int]]
Corner = tuple[int, int, int]
"""x, y and the direction in which a walk leaves it: 0 right, 1 down, 2 left, 3 up."""

_STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
_TURNS = (1, 0, 3)
"""Right, straight on, left: lung is on the right hand, and where two lung pixels meet at a
corner the walk stays with its own, so that it belongs to one 4-connected region."""
_PIXEL_BESIDE = ((0, 0), (-1, 0), (-1, -1), (0, -1))
"""(x, y) from the start of an edge to the lung pixel on its right, per direction."""


def polygons(plane: BoolArray) -> list[list[Ring]]:
    """Polygons of a mask: for each 4-connected region its outer ring, then its holes.

    Rings are closed (the last point is the first), have corners only, never touch themselves,
    and wind as RFC 7946 wants: outer ones counterclockwise with y read upwards.

    Args:
        plane: bool, shape (Y, X).

    Returns:
        ``coordinates`` of a GeoJSON MultiPolygon; empty for an empty mask.
    """
    labels, count = label_regions(plane, corners=False)
    outer: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = {}
    for walk in _walks(plane):
        for corners in _simple(walk):
            x, y, direction = corners[0]
            aside = _PIXEL_BESIDE[direction]
            region = int(labels[y + aside[1], x + aside[0]])
            ring = [(x, y) for x, y, _ in (*corners, corners[0])]
            if _doubled_area(ring) > 0:
                outer[region] = ring
            else:
                holes.setdefault(region, []).append(ring)
    return [[outer[region], *holes.get(region, [])] for region in range(1, count + 1)]


def _edges(plane: BoolArray) -> NDArray[np.int64]:
    """Directed unit edges between lung and background, rows of (x, y, direction)."""
    padded = np.pad(plane, 1)  # (Y + 2, X + 2)
    # What lies above, right, below and left of each pixel, (Y, X) each.
    outside = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    found: list[NDArray[np.int64]] = []
    for direction, neighbour in enumerate(outside):
        rows, columns = np.nonzero(plane & ~neighbour)  # (edges of this direction,) each
        aside = _PIXEL_BESIDE[direction]
        start = [columns - aside[0], rows - aside[1], np.full(rows.size, direction)]
        found.append(np.stack(start, axis=1))
    return np.concatenate(found)


def _walks(plane: BoolArray) -> list[list[Corner]]:
    """The corners of each closed walk along the edges."""
    edges = _edges(plane)  # (edges, 3)
    key = (edges[:, 1] * (plane.shape[1] + 1) + edges[:, 0]) * 4 + edges[:, 2]
    order = np.argsort(key)
    edges, key = edges[order], key[order]
    end = edges[:, :2] + _STEPS[edges[:, 2]]  # (edges, 2): x, y
    follower = np.full(key.size, -1)  # (edges,): which edge comes next, none yet
    for turn in _TURNS:
        wanted = (end[:, 1] * (plane.shape[1] + 1) + end[:, 0]) * 4 + (edges[:, 2] + turn) % 4
        place = np.minimum(np.searchsorted(key, wanted), key.size - 1)
        follower = np.where((follower < 0) & (key[place] == wanted), place, follower)
    turns = (edges[follower, 2] != edges[:, 2]).tolist()
    after: list[int] = follower.tolist()
    points: list[Corner] = [(x, y, direction) for x, y, direction in edges.tolist()]
    seen = bytearray(len(points))
    walks: list[list[Corner]] = []
    for first in range(len(points)):
        edge, walk = first, list[Corner]()
        while not seen[edge]:
            seen[edge] = 1
            if turns[edge]:
                walk.append(points[after[edge]])
            edge = after[edge]
        if walk:
            walks.append(walk)
    return walks


def _simple(walk: list[Corner]) -> list[list[Corner]]:
    """Splits a walk wherever it comes through the same corner again."""
    rings: list[list[Corner]] = []
    path: list[Corner] = []
    position: dict[tuple[int, int], int] = {}
    for corner in walk:
        point = corner[:2]
        if point in position:
            cut = position[point]
            rings.append(path[cut:])
            for passed in path[cut:]:
                del position[passed[:2]]
            del path[cut:]
        position[point] = len(path)
        path.append(corner)
    return [*rings, path]


def _doubled_area(ring: Ring) -> int:
    return sum(here[0] * there[1] - there[0] * here[1] for here, there in itertools.pairwise(ring))
