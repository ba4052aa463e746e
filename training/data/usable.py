"""Which pairs can be learnt from, and what speaks against the others."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.cache import judge
from training.data.dataset import Listing, Pair, file_hash
from training.data.likeness import find_twins
from training.errors import DataError

MOST_NAMED = 10
"""Unreadable pairs named in an error."""


def usable_pairs(
    listings: Sequence[Listing],
    *,
    skip_unreadable: bool = False,
    cache: Path | None = None,
    keep: str = "",
) -> tuple[list[Pair], list[tuple[Pair, str]], list[tuple[Pair, Pair]]]:
    """Sorts pairs into usable ones and those with a reason against them; finds near duplicates.

    Args:
        listings: the pairs of all sources.
        skip_unreadable: leave out what can't be read, instead of an error.
        cache: folder that keeps what was found of each pair.
        keep: names or patterns, as ``source/name`` with commas between, that no rule drops.

    Returns:
        The usable pairs, the others with reasons, and which usable ones look alike.

    Raises:
        DataError: pairs can't be read and are not to be skipped, or no pair is usable.
    """
    kept: list[Pair] = []
    dropped: list[tuple[Pair, str]] = []
    unreadable: list[str] = []
    prints: list[NDArray[np.float16]] = []
    with_lung = 0
    seen: dict[tuple[bytes, int | None], Pair] = {}
    for pair in (pair for listing in listings for pair in listing.pairs):
        try:
            verdict = judge(pair, cache)
        except DataError as error:
            unreadable.append(f"{pair.source}/{pair.name}: {error}")
            dropped.append((pair, f"unreadable: {error}"))
            continue
        first = seen.setdefault((file_hash(pair.image), pair.index), pair)
        if first is not pair:
            dropped.append((pair, f"duplicate: the same slice as {first.source}/{first.name}"))
        elif verdict.code and not _wanted(pair, keep):
            name = f"{pair.source}/{pair.name}"
            remedy = f"if the mask is right, --keep {name}"
            dropped.append((pair, f"{verdict.code}: {verdict.reason}; {remedy}"))
        else:
            kept.append(pair)
            prints.append(verdict.fingerprint)
            with_lung += verdict.lung
    if unreadable and not skip_unreadable:
        raise DataError(_unreadable(unreadable))
    _expect_usable(kept, dropped, with_lung)
    twins = find_twins(kept, prints, range(len(kept)))
    return kept, dropped, [(one, other) for one, other, _ in twins.alike]


def _wanted(pair: Pair, keep: str) -> bool:
    name = f"{pair.source}/{pair.name}"
    return any(fnmatchcase(name, pattern.strip()) for pattern in keep.split(","))


def _unreadable(sentences: list[str]) -> str:
    lines = [f"{len(sentences)} pairs can't be used:"]
    lines += [f"  {sentence}" for sentence in sentences[:MOST_NAMED]]
    if len(sentences) > MOST_NAMED:
        lines.append(f"  and {len(sentences) - MOST_NAMED} more")
    lines.append("repair or remove them and start again, or leave them out: --skip-unreadable")
    return "\n".join(lines)


def _expect_usable(kept: list[Pair], dropped: list[tuple[Pair, str]], with_lung: int) -> None:
    if kept and with_lung:
        return
    remedy = "see all with `python -m training inspect`"
    if kept:
        raise DataError(
            f"all {len(kept)} usable masks are empty, {kept[0].mask.name} first: check how they "
            f"were exported; {remedy}"
        )
    pair, reason = dropped[0]
    raise DataError(
        f"none of the {len(dropped)} pairs is usable; the first, {pair.mask.name}: {reason}; "
        f"{remedy}"
    )
