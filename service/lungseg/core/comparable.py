"""Reasons why two scans do not compare, as named warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_VOLUME_CHANGE = 0.10
"""Of the volume before, by which breath is taken to have differed."""
MAX_THICKNESS_MM, MAX_STEP_SHARE = 0.1, 0.1
"""By what slices may differ in thickness, and their steps as a share: headers round."""
CUT_FLAGS = {"incomplete_apex", "incomplete_base", "touches_border"}
"""Flags of lungs that go on where the scan ends."""
MESSAGES = {
    "kernel_differs": "the scans were reconstructed with different kernels: densities do not "
    "compare",
    "thickness_differs": "slices are not of one thickness, or not equally far apart: densities do "
    "not compare",
    "kvp_differs": "the tube voltages differ: densities do not compare",
    "contrast_differs": "contrast medium was given in one of the scans alone: densities do not "
    "compare",
    "manufacturer_differs": "the scanners are of different makers: densities do not compare",
    "inspiration_differs": f"the volumes differ by {MAX_VOLUME_CHANGE:.0%} or more: another depth "
    "of breath changes densities, and only volume-adjusted ones compare",
    "incomplete_lung": "a scan does not hold all of the lungs: volumes and masses are lower "
    "bounds, and neither percentages nor verdicts are given",
    "model_differs": "the masks are of different models",
}
"""By code, in the order in which warnings are given."""


def warnings_of(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, str]]:
    """What is to be said before two checked answers are compared; unknown is no difference."""
    thick = _differ(before, after, "acquisition", "slice_thickness_mm", MAX_THICKNESS_MM)
    raised = {
        "kernel_differs": _differ(before, after, "acquisition", "kernel"),
        "thickness_differs": thick or _steps_differ(before, after),
        "kvp_differs": _differ(before, after, "acquisition", "kvp", 0.5),
        "contrast_differs": _differ(before, after, "acquisition", "contrast"),
        "manufacturer_differs": _differ(before, after, "acquisition", "manufacturer"),
        "inspiration_differs": _breath_differs(before, after),
        "incomplete_lung": is_cut(before) or is_cut(after),
        "model_differs": _models_differ(before, after),
    }
    return [{"code": code, "message": MESSAGES[code]} for code in MESSAGES if raised[code]]


def is_cut(answer: Mapping[str, Any]) -> bool:
    """Whether the lungs go on where the scan ends."""
    return not CUT_FLAGS.isdisjoint(answer["flags"])


def _differ(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    part: str,
    name: str,
    tolerance: float = 0.0,
) -> bool:
    first, second = before[part][name], after[part][name]
    if first is None or second is None:
        return False
    return abs(first - second) > tolerance if tolerance else first != second


def _steps_differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    first, second = (answer["volume"]["step_mm"] for answer in (before, after))
    return bool(first and second) and abs(second - first) > MAX_STEP_SHARE * abs(first)


def _breath_differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    first, second = (answer["statistics"]["volume_ml"] for answer in (before, after))
    return bool(first and second) and abs(second - first) >= MAX_VOLUME_CHANGE * first


def _models_differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    names = ("name", "version", "sha256")
    return any(_differ(before, after, "model", name) for name in names)
