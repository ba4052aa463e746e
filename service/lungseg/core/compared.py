"""Checks that what is to be compared are answers for volumes, with the members that it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from lungseg.core.errors import InvalidParameter
from lungseg.core.figures import HAA_HU, LAA_HU

SIDES = ("right", "left")
THIRDS = ("lower", "middle", "upper")
SHARES = (*(f"laa_{level}" for level in LAA_HU), *(f"haa_{level}" for level in HAA_HU))
LEVELS = ("mean", "p5", "p15")
MODEL = ("name", "version", "sha256")
ACQUISITION_TEXTS = ("kernel", "contrast", "manufacturer")
ACQUISITION_NUMBERS = ("slice_thickness_mm", "kvp")
LARGEST = 1e9
"""No figure of a lung comes near."""
SMALLEST = 1e-6
"""Nothing less is measured: it counts as nothing."""
Members = dict[str, Any]


def checked_answer(answer: object, name: str) -> Members:
    """The members of an answer that are compared; what else it has is left out.

    Raises:
        InvalidParameter: it is no answer for a volume; the message says where, not what it has.
    """
    found = _members(answer, name)
    statistics = _members(found.get("statistics"), f"{name}.statistics")
    place = f"{name}.statistics.lungs"
    lungs = _members(statistics.get("lungs"), place)
    return {
        "model": _texts(_members(found.get("model", {}), f"{name}.model"), MODEL, f"{name}.model"),
        "volume": {"step_mm": _step_mm(_members(found.get("volume"), f"{name}.volume"), name)},
        "acquisition": _acquisition(found.get("acquisition", {}), f"{name}.acquisition"),
        "flags": _flags(found, name),
        "statistics": {
            **_region(statistics, f"{name}.statistics"),
            "lungs": {side: _optional(lungs.get(side), f"{place}.{side}") for side in SIDES},
            "thirds": _thirds(statistics.get("thirds"), f"{name}.statistics.thirds"),
        },
    }


def _acquisition(value: object, place: str) -> Members:
    members = _members(value, place)
    numbers = {name: _number(members, name, place) for name in ACQUISITION_NUMBERS}
    return {**_texts(members, ACQUISITION_TEXTS, place), **numbers}


def _texts(members: Members, names: Sequence[str], place: str) -> dict[str, str | None]:
    """What is compared as text, whatever an answer has it as: the name of a kernel, a version."""
    found: dict[str, str | None] = {}
    for name in names:
        value = members.get(name)
        if not isinstance(value, str | int | float | None):
            raise _refused(f"{place}.{name}", "a text or null")
        found[name] = None if value is None else str(value).strip().lower()
    return found


def _thirds(value: object, place: str) -> Members | None:
    if value is None:
        return None
    thirds = _members(value, place)
    found: Members = {}
    for side in SIDES:
        lung = thirds.get(side)
        if lung is not None:
            parts = _members(lung, f"{place}.{side}")
            lung = {part: _region(parts.get(part), f"{place}.{side}.{part}") for part in THIRDS}
        found[side] = lung
    return found


def _optional(value: object, place: str) -> Members | None:
    return None if value is None else _region(value, place)


def _region(value: object, place: str) -> Members:
    region = _members(value, place)
    intensity = _members(region.get("intensity"), f"{place}.intensity")
    density = region.get("density")
    if density is not None:
        members = _members(density, f"{place}.density")
        density = {
            share: _number(members, share, f"{place}.density") for share in (*SHARES, "perc15")
        }
    return {
        "volume_ml": _number(region, "volume_ml", place),
        "mass_g": _number(region, "mass_g", place),
        "intensity": {
            "unit": intensity.get("unit"),
            **{name: _number(intensity, name, f"{place}.intensity") for name in LEVELS},
        },
        "density": density,
    }


def _flags(answer: Members, name: str) -> list[str]:
    """The codes of all flags."""
    quality = _members(answer.get("quality", {"flags": []}), f"{name}.quality")
    flags, place = quality.get("flags"), f"{name}.quality.flags"
    if not isinstance(flags, list):
        raise _refused(place, "a list")
    given = [
        _texts(_members(flag, place), ("code",), place) for flag in cast("list[object]", flags)
    ]
    return [flag["code"] or "" for flag in given]


def _step_mm(volume: Members, name: str) -> float | None:
    """How far slices lie apart."""
    spacing, place = volume.get("spacing_mm"), f"{name}.volume.spacing_mm"
    if spacing is None:
        return None
    if not isinstance(spacing, list | tuple) or len(cast("list[object]", spacing)) != 3:
        raise _refused(place, "three numbers")
    return _number({"0": spacing[0]}, "0", place)


def _members(value: object, place: str) -> Members:
    if not isinstance(value, Mapping):
        raise _refused(place, "an object")
    return dict(cast("Mapping[str, Any]", value))


def _number(members: Members, name: str, place: str) -> float | None:
    value = members.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= LARGEST:  # NaN is not, either
        raise _refused(f"{place}.{name}", "a number of a lung or null")
    return float(value) if abs(value) >= SMALLEST else 0.0


def _refused(place: str, expected: str) -> InvalidParameter:
    return InvalidParameter(
        f"expected an answer for a volume with {expected} as {place}, received something else"
    )
