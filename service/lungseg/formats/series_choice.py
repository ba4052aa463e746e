"""Which of several volumes is meant, and whether its slices form a stack at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungseg.core.errors import InconsistentGeometry, InvalidParameter, SeveralVolumes
from lungseg.formats.series import Stack

SAME_COVERAGE_MM = 10.0
"""Series whose lengths along the body differ by less reach equally far: a step may be as large."""
ASIDE_MM = 1.0
"""As far as this, or a pixel, half of it either way, slices may be moved within their planes."""
MIN_LINE = 3
"""Two slices always lie on a line."""


def choose(stacks: Sequence[Stack], series: str | None, volume: int | None) -> Stack:
    """The volume that is meant: that which is named, or the one that shows most of the body.

    Of those that reach equally far it is the one of most slices, then of the thinnest, then of
    the first UID.

    Args:
        stacks: what there is.
        series: SeriesInstanceUID, None for any.
        volume: which phase of the series, None where there is but one.

    Raises:
        InvalidParameter: there is no such series or phase.
        SeveralVolumes: phases that are equal, or that nothing tells apart.
        InconsistentGeometry: nobody knows where the slices lie.
    """
    named = [one for one in stacks if series is None or one.planes[0].series == series]
    if not named:
        raise InvalidParameter("expected the series UID of slices that were sent")
    furthest = max(one.coverage_mm for one in named) - SAME_COVERAGE_MM
    equal = [one for one in named if one.coverage_mm >= furthest]
    chosen = min(equal, key=_rank)
    phases = [one for one in stacks if one.group == chosen.group]
    if volume is None:
        _check_only(chosen, phases)
    elif volume >= len(phases):
        raise InvalidParameter(f"expected volume below {len(phases)}, received {volume}")
    else:
        chosen = phases[volume]
    if chosen.mingled:
        raise SeveralVolumes(
            f"expected slices of one volume, received {len(chosen.planes)} of which some lie at "
            "one place, and no attribute that tells them apart"
        )
    if len(chosen.planes) > 1 and not chosen.distances_mm.size:
        raise InconsistentGeometry(
            "expected slices whose headers say where they lie, received some that do not"
        )
    _check_line(chosen)
    return chosen


def _check_only(chosen: Stack, phases: Sequence[Stack]) -> None:
    """Refuses to choose among phases, unless only one reaches as far as they do together."""
    enough = chosen.group_mm - SAME_COVERAGE_MM
    if len(phases) > 1 and [one for one in phases if one.coverage_mm >= enough] != [chosen]:
        slices = ", ".join(str(len(one.planes)) for one in phases)
        raise SeveralVolumes(
            f"expected one volume, received {len(phases)} at one place, of {slices} slices: "
            f"volume=0 to volume={len(phases) - 1} says which is meant"
        )


def _check_line(stack: Stack) -> None:
    """Refuses slices that are moved against each other within their planes."""
    places = np.array([plane.position_mm for plane in stack.planes if plane.position_mm])
    if len(stack.planes) < MIN_LINE:
        return
    distances = stack.distances_mm - stack.distances_mm[0]
    line = places[0] + distances[:, None] / distances[-1] * (places[-1] - places[0])
    aside = float(np.linalg.norm(places - line, axis=1).max())
    allowed = max(ASIDE_MM, *(stack.planes[0].spacing_mm or (0.0,))) / 2
    if aside > allowed:
        raise InconsistentGeometry(
            f"expected slices one above the other, received some that lie {aside:.3g} mm aside"
        )


def _rank(stack: Stack) -> tuple[int, float, str]:
    return -len(stack.planes), stack.step_mm or np.inf, stack.planes[0].series
