"""What the figures should be, and whether they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Aim(NamedTuple):
    """A figure by its name, what it means, and where it should be; the aims are of two cores."""

    name: str
    meaning: str
    value: float
    more_is_better: bool = False


def print_aims(aims: Sequence[Aim], figures: Mapping[str, float]) -> None:
    print("\naims")
    for name, meaning, aim, more in aims:
        met = figures[name] >= aim if more else figures[name] <= aim
        sign = "≥" if more else "≤"
        print(f"  {'met   ' if met else 'missed'} {figures[name]:7.2f} ({sign} {aim:g}) {meaning}")
