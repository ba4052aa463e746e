"""Closed surfaces around what is above a level: surface nets (Gibson 1998) in NumPy.

Each cell of eight corners that the surface passes has one vertex, at the mean of where the surface
crosses the cell's edges; each edge of the grid that it crosses has a quadrangle between the four
cells around it. Nothing needs a table, and the triangles are well shaped.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from lungseg.core.types import BoolArray, FloatArray

Vertices = NDArray[np.float32]
Faces = NDArray[np.int32]
_CORNERS = np.array(list(product((0, 1), repeat=3)))  # (8, 3)
_EDGES = [
    (first, second)
    for first, second in product(range(8), repeat=2)
    if first < second and np.abs(_CORNERS[first] - _CORNERS[second]).sum() == 1
]
"""Pairs of corners, twelve."""


def surface(field: FloatArray, level: float) -> tuple[Vertices, Faces]:
    """The surface where a field crosses a level.

    Args:
        field: shape (Z, Y, X), below the level along all its borders.
        level: what is above lies inside.

    Returns:
        Vertices, float32, shape (n, 3), in the field's index coordinates, and triangles, int32,
        shape (m, 3), whose edges belong to exactly two each; they turn to the left as seen from
        outside, in axes (z, y, x) that are taken to be right-handed.
    """
    field = _without_crossings(field, level)
    inside = field > level
    number, cells = _cells(inside)
    return _vertices(field, level, cells), _faces(inside, number)


def _without_crossings(field: FloatArray, level: float) -> FloatArray:
    """Fills squares of which two opposite corners alone are inside: their edge would be four's."""
    field = field.copy()
    above = np.nextafter(np.float32(level), np.float32(np.inf))
    while True:
        filled = False
        for flat, turned in product(((1, 2), (0, 2), (0, 1)), (False, True)):
            one, two, first, second = (field[part] for part in _squares(flat, turned=turned))
            bad = (one > level) & (two > level) & (first <= level) & (second <= level)
            nearer = first >= second
            first[bad & nearer] = second[bad & ~nearer] = above
            filled |= bool(bad.any())
        if not filled:
            return field


def _squares(flat: tuple[int, int], *, turned: bool) -> list[tuple[slice, ...]]:
    """Views of a field that are the corners of its squares: two opposite ones, then the others."""
    low, high = slice(None, -1), slice(1, None)
    order = ((low, low), (high, high), (low, high), (high, low))
    if turned:
        order = order[2:] + order[:2]
    found: list[tuple[slice, ...]] = []
    for pair in order:
        part = [slice(None)] * 3
        part[flat[0]], part[flat[1]] = pair
        found.append(tuple(part))
    return found


def _cells(inside: BoolArray) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Numbers of the cells that the surface passes (-1 elsewhere), and their lowest corners."""
    count = inside[:-1].astype(np.uint8) + inside[1:]
    count = count[:, :-1] + count[:, 1:]
    count = count[:, :, :-1] + count[:, :, 1:]
    passed = (count > 0) & (count < 8)
    number = np.full(passed.shape, -1, np.int32)
    cells = np.argwhere(passed)
    number[passed] = np.arange(len(cells), dtype=np.int32)
    return number, cells


def _vertices(field: FloatArray, level: float, cells: NDArray[np.intp]) -> Vertices:
    corners = [field[tuple((cells + corner).T)] for corner in _CORNERS]  # eight of shape (n,)
    summed, crossed = np.zeros((len(cells), 3)), np.zeros(len(cells))
    for first, second in _EDGES:
        low, high = corners[first], corners[second]
        cuts = (low > level) != (high > level)
        share = np.where(cuts, (level - low) / np.where(cuts, high - low, 1), 0)
        along = _CORNERS[second] - _CORNERS[first]
        summed += cuts[:, None] * (_CORNERS[first] + share[:, None] * along)
        crossed += cuts
    return (cells + summed / crossed[:, None]).astype(np.float32)


def _faces(inside: BoolArray, number: NDArray[np.int32]) -> Faces:
    found: list[NDArray[np.int32]] = []
    for axis in range(3):
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        leaving = inside[tuple(behind)].astype(np.int8) - inside[tuple(ahead)]
        edges = np.argwhere(leaving)
        second, third = (axis + 1) % 3, (axis + 2) % 3
        around: list[NDArray[np.int32]] = []
        for steps in ((1, 1), (0, 1), (0, 0), (1, 0)):
            cell = edges.copy()
            cell[:, second] -= steps[0]
            cell[:, third] -= steps[1]
            around.append(number[tuple(cell.T)])
        square = np.stack(around, axis=1)  # (edges, 4)
        entering = leaving[tuple(edges.T)] < 0
        square[entering] = square[entering, ::-1]
        found += [square[:, :3], square[:, [0, 2, 3]]]
    return np.concatenate(found)
