"""Which of many CT planes form one volume, and in which order.

No reader of the field is right about every series, so the rule is here, and nothing else is:
planes are grouped by what they share, never by folder, name or number; sorted by where they lie
along their normal, never by number or slice location; and slices at one place are told apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lungseg.core.geometry import SAME_PLACE_MM
from lungseg.core.types import Orientation
from lungseg.formats.planes import PHASES, Plane

SAME_DIRECTION = 5e-4
"""Direction cosines and pixel spacings (mm) closer than this are the same."""
LEAST_IN_FRAME = 3
"""Slices that a frame of reference has on average, or it is no volume's."""
MOST_PARTS = 2
"""For each slice at one place, into how many parts phases may fall: more are no phases."""
Pixels = Callable[[Plane], bytes]
"""A digest of a plane's encoded pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Planes of one group in the order along their normal."""

    planes: tuple[Plane, ...]
    group: int
    """Phases of one group are told apart by nothing that a series has of its own."""
    orientation: Orientation | None
    distances_mm: NDArray[np.float64]
    """Along the normal, ascending, shape (Z,); empty where some place is unknown."""
    twice: int = 0
    """How many planes were left out, because they were there already."""
    mingled: bool = False
    """Different planes lie at one place, and nothing says which belong together."""
    group_mm: float = 0.0
    """How far all phases of the group reach together; 0 where there are no phases."""

    @property
    def step_mm(self) -> float | None:
        """Median distance of neighbours."""
        gaps = np.diff(self.distances_mm)
        return float(np.sort(gaps)[(gaps.size - 1) // 2]) if gaps.size else None

    @property
    def coverage_mm(self) -> float:
        """How far the stack reaches along the body, whatever its orientation; 0 if unknown."""
        first, last = self.planes[0], self.planes[-1]
        if not self.distances_mm.size or self.orientation is None or first.spacing_mm is None:
            return 0.0
        rows, columns = np.multiply(first.size, first.spacing_mm)
        down, across = self.orientation.column_direction[2], self.orientation.row_direction[2]
        along = abs((last.position_mm or (0.0,) * 3)[2] - (first.position_mm or (0.0,) * 3)[2])
        step = (self.step_mm or 0.0) * abs(float(self.orientation.normal[2]))
        return along + step + abs(rows * down) + abs(columns * across)


def stacks_of(planes: Iterable[Plane], pixels: Pixels) -> list[Stack]:
    """All volumes that the planes form, by series and within it in order of their phases."""
    found: list[Stack] = []
    for number, group in enumerate(_groups(planes)):
        stack = _sorted(group, number)
        if stack.distances_mm.size:
            stack = _without_twins(stack, pixels)
        found += _phases(stack) if stack.mingled else [stack]
    return found


def _groups(planes: Iterable[Plane]) -> list[list[Plane]]:
    """Planes of one series, frame of reference, size, spacing and direction."""
    given = sorted(planes, key=lambda one: (one.series, one.instance, one.frame))
    groups: dict[object, list[Plane]] = defaultdict(list)
    for plane, level in zip(given, _levels([_measure(plane) for plane in given]), strict=True):
        known = plane.position_mm is not None and plane.orientation is not None
        groups[plane.series, plane.size, known, level].append(plane)
    return [part for group in groups.values() for part in _by_frame_of_reference(group)]


def _by_frame_of_reference(group: list[Plane]) -> list[list[Plane]]:
    """Parts whose places can be compared.

    De-identification may give every slice a frame of its own; such frames mean nothing.
    """
    parts: dict[str, list[Plane]] = defaultdict(list)
    for plane in group:
        parts[plane.frame_of_reference].append(plane)
    return [group] if len(group) < LEAST_IN_FRAME * len(parts) else [*parts.values()]


def _measure(plane: Plane) -> tuple[float, ...]:
    """Direction and spacing as numbers; zeros where they are unknown."""
    row, column = (0.0,) * 3, (0.0,) * 3
    if plane.orientation is not None:
        row, column = plane.orientation.row_direction, plane.orientation.column_direction
    return (*row, *column, *(plane.spacing_mm or (0.0, 0.0)))


def _levels(measures: Sequence[Sequence[float]]) -> list[tuple[int, ...]]:
    """A name for each measure, the same for those that are the same but for rounding.

    Rounding them would part neighbours on either side of a step, so gaps between the values
    that occur are looked for.
    """
    levels: list[NDArray[np.int64]] = []
    for values in np.array(measures).reshape(len(measures), -1).T:
        order = np.argsort(values)
        level = np.zeros(len(values), np.int64)
        level[order[1:]] = np.cumsum(np.diff(values[order]) > SAME_DIRECTION)
        levels.append(level)
    return [tuple(level) for level in np.transpose(levels).tolist()]


def _sorted(group: Sequence[Plane], number: int) -> Stack:
    """By the place along the normal; those whose place is unknown stay as they are."""
    orientation = _common_orientation(group)
    known = [plane.position_mm for plane in group if plane.position_mm is not None]
    if orientation is None or len(known) < len(group):
        return Stack(
            planes=tuple(group), group=number, orientation=orientation, distances_mm=np.empty(0)
        )
    distances = np.array(known) @ orientation.normal
    order = np.argsort(distances, kind="stable")
    return Stack(
        planes=tuple(group[place] for place in order),
        group=number,
        orientation=orientation,
        distances_mm=distances[order],
    )


def _common_orientation(group: Sequence[Plane]) -> Orientation | None:
    """The middle of the planes' directions: headers round each for itself."""
    given = [plane.orientation for plane in group if plane.orientation is not None]
    if not given:
        return None
    row = np.median([one.row_direction for one in given], axis=0).tolist()
    column = np.median([one.column_direction for one in given], axis=0).tolist()
    return Orientation(row_direction=(*row,), column_direction=(*column,))


def _without_twins(stack: Stack, pixels: Pixels) -> Stack:
    """Leaves out planes that are there already, by their UID or their very pixels."""
    kept: list[int] = []
    mingled = False
    for place in _places(stack.distances_mm):
        different = place[:1] if len(place) == 1 else _different(stack.planes, place, pixels)
        mingled |= len(different) > 1
        kept += different
    return replace(_part(stack, kept), twice=len(stack.planes) - len(kept), mingled=mingled)


def _different(planes: Sequence[Plane], place: Sequence[int], pixels: Pixels) -> list[int]:
    """Of planes at one place the first of each that differ."""
    by_name = {(planes[index].instance or index, planes[index].frame): index for index in place}
    by_pixels: dict[bytes, int] = {}
    for index in by_name.values():
        by_pixels.setdefault(pixels(planes[index]), index)
    return [*by_pixels.values()]


def _places(distances: NDArray[np.float64]) -> list[list[int]]:
    """Indices of planes that lie at one place, place by place."""
    places: list[list[int]] = [[0]]
    for index, (before, here) in enumerate(pairwise(distances.tolist()), start=1):
        if here - before < SAME_PLACE_MM:
            places[-1].append(index)
        else:
            places.append([index])
    return places


def _phases(stack: Stack) -> list[Stack]:
    """The volumes at one place, by the first attribute that tells all their planes apart."""
    most = max(map(len, _places(stack.distances_mm)))
    for keywords in PHASES:
        parts: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, plane in enumerate(stack.planes):
            parts[_phase(plane, keywords)].append(index)
        apart = all(len(_places(stack.distances_mm[part])) == len(part) for part in parts.values())
        if apart and len(parts) <= MOST_PARTS * most:
            whole = replace(stack, mingled=False, group_mm=stack.coverage_mm)
            return [_part(whole, parts[value]) for value in sorted(parts, key=_in_order)]
    return [stack]


def _phase(plane: Plane, keywords: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(plane.header.get(keyword) or "").strip() for keyword in keywords)


def _in_order(values: tuple[str, ...]) -> list[tuple[float, str]]:
    """Numbers by their size, before texts by theirs."""
    return [
        (float(value), "") if value.replace(".", "", 1).isdecimal() else (np.inf, value)
        for value in values
    ]


def _part(stack: Stack, indices: Sequence[int]) -> Stack:
    return replace(
        stack,
        planes=tuple(stack.planes[index] for index in indices),
        distances_mm=stack.distances_mm[[*indices]],
    )
