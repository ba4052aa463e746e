"""Figures by what a slice holds: much lung by region and group, slivers, none, airways beside.

A mean over all slices hides what matters: a mid-chest is easy and common, while an apex that is
lost, a stomach that is called lung and a trachea in the mask are rare. Areas are in cm², so that
only slices of known spacing take part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.evaluate import SliceResult, markdown_table

SLIVER_CM2 = 10.0
"""Lung below this is the sliver of an apex or a base: found or not, its Dice says little."""
FOUND_DICE = 0.5
"""Dice above which a sliver counts as found."""
LEAST_STACK = 12
"""Slices with lung from which a patient's regions can be told."""
REGIONS = ((0.15, "base"), (0.5, "mid"), (0.85, "upper"), (1.0, "apex"))
"""Share of the way from a patient's lowest slice with lung to the highest, up to which it lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Figures over the slices of one kind; NaN where they say nothing of it.

    Attributes:
        name: of the kind.
        slices, patients: how many.
        mean, p5, least: of Dice, where there is lung.
        found: share of the slices with a Dice above ``FOUND_DICE``.
        area_error_cm2: mean of |area of the mask − area of the truth|.
        false_cm2, most_false_cm2: mean and greatest area wrongly called lung.
        worst: name of the slice of lowest Dice, without lung of the greatest false area.
    """

    name: str
    slices: int
    patients: int
    mean: float
    p5: float
    least: float
    found: float
    area_error_cm2: float
    false_cm2: float
    most_false_cm2: float
    worst: str


def by_lung(results: Sequence[SliceResult]) -> list[Group]:
    """Groups the slices of known spacing by how much lung they hold.

    Much lung is told by region, and by what a table says that slices are examples of.
    """
    known = [item for item in results if item.areas is not None]
    regions = _regions(known)
    much = [item for item in known if _truth(item) >= SLIVER_CM2]
    kinds = [(f"lung, {SLIVER_CM2:g} cm² or more", much)]
    for _, region in reversed(REGIONS):
        kinds.append((f"· {region}", [item for item in much if regions.get(id(item)) == region]))
    examples = sorted({item.pair.group for item in much if item.pair.group})
    kinds += [(f"· {name}", [i for i in much if i.pair.group == name]) for name in examples]
    kinds.append(
        (f"slivers below {SLIVER_CM2:g} cm²", [i for i in known if 0 < _truth(i) < SLIVER_CM2])
    )
    kinds.append(("no lung", [item for item in known if _truth(item) == 0]))
    return [_group(name, items) for name, items in kinds if items]


def airway_share(results: Sequence[SliceResult]) -> tuple[float, float, int]:
    """How much of trachea and main bronchi is called lung.

    Returns:
        Their area in cm² over all slices, the share of it that is in the masks (NaN where
        nobody drew any), and on how many slices they were drawn.
    """
    drawn = [item.areas for item in results if item.areas and item.areas.airway_cm2 > 0]
    total = sum(areas.airway_cm2 for areas in drawn)
    wrong = sum(areas.airway_called_lung_cm2 for areas in drawn)
    return total, wrong / total if total else float("nan"), len(drawn)


def format_groups(results: Sequence[SliceResult]) -> str:
    """The groups as a table of GitHub-flavoured Markdown, and a sentence about airways."""
    head = (
        "group", "slices / patients", "mean Dice", "p5", "least", "found", "area error cm²",
        "false cm²", "greatest", "worst slice",
    )  # fmt: skip
    rows = [
        (
            group.name,
            f"{group.slices} / {group.patients}",
            *(_number(value, 4) for value in (group.mean, group.p5, group.least)),
            "–" if np.isnan(group.found) else f"{group.found:.0%}",
            *(
                _number(value, 2)
                for value in (group.area_error_cm2, group.false_cm2, group.most_false_cm2)
            ),
            group.worst,
        )
        for group in by_lung(results)
    ]
    area, share, slices = airway_share(results)
    table = markdown_table(head, rows)
    if not slices:
        return table
    return f"{table}\n\nAirways: {share:.1%} of {area:.1f} cm² on {slices} slices are called lung."


def _regions(results: Sequence[SliceResult]) -> dict[int, str]:
    stacks: dict[tuple[str, str], list[SliceResult]] = {}
    for item in results:
        if item.height_mm is not None and _truth(item) > 0:
            stacks.setdefault((item.pair.source, item.pair.patient), []).append(item)
    found: dict[int, str] = {}
    for stack in stacks.values():
        heights = np.array([item.height_mm for item in stack], float)
        if len(stack) < LEAST_STACK or np.ptp(heights) == 0:
            continue
        shares = (heights - heights.min()) / np.ptp(heights)
        for item, share in zip(stack, shares, strict=True):
            found[id(item)] = next(name for upto, name in REGIONS if share <= upto)
    return found


def _group(name: str, items: Sequence[SliceResult]) -> Group:
    truth = np.array([_truth(item) for item in items])
    dice = np.array([item.metrics.dice for item in items])
    false = np.array([item.areas.false_cm2 for item in items if item.areas])
    errors = [abs(item.areas.found_cm2 - item.areas.truth_cm2) for item in items if item.areas]
    lung, slivers = truth.min() > 0, 0 < truth.max() < SLIVER_CM2
    order: NDArray[np.float64] = -dice if lung else false
    worst = items[int(order.argmax())].pair
    unknown = float("nan")
    return Group(
        name=name,
        slices=len(items),
        patients=len({(item.pair.source, item.pair.patient) for item in items}),
        mean=float(dice.mean()) if lung else unknown,
        p5=float(np.percentile(dice, 5)) if lung else unknown,
        least=float(dice.min()) if lung else unknown,
        found=float((dice > FOUND_DICE).mean()) if slivers else unknown,
        area_error_cm2=float(np.mean(errors)) if slivers else unknown,
        false_cm2=float(false.mean()),
        most_false_cm2=float(false.max()),
        worst=f"{worst.source}/{worst.name}",
    )


def _truth(item: SliceResult) -> float:
    return item.areas.truth_cm2 if item.areas else float("nan")


def _number(value: float, digits: int) -> str:
    return "–" if np.isnan(value) else f"{value:.{digits}f}"
