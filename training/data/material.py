"""What a run learns from: listed, cleaned and split, with a record of each step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from training.config import TrainConfig
from training.data.cache import judge
from training.data.dataset import Listing, Pair, data_hash, file_hash, write_pairs
from training.data.sources import Source, list_sources
from training.data.split import split_by_list, split_by_patient, split_fold, split_hash
from training.errors import DataError

SPLIT, DROPPED, PROVENANCE = "split.csv", "dropped.csv", "provenance.json"
MATERIAL = "material.json"
MOST_NAMED = 10
"""Unreadable pairs named in an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The cleaned and split slices of a run.

    Attributes:
        training: pairs to learn from.
        validation: pairs held out, of other patients.
        dropped: pairs left out, each with the reason.
        unmatched: files without a partner.
        weights: how often the slices of a source are drawn in an epoch.
    """

    training: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    dropped: tuple[tuple[Pair, str], ...]
    unmatched: tuple[str, ...]
    weights: dict[str, float] = field(default_factory=dict)

    def describe(self) -> str:
        """Counts in one line, then each dropped pair with its reason."""
        counts = (
            f"{len(self.training)} slices to train on, {len(self.validation)} to validate, "
            f"{len(self.dropped)} dropped, {len(self.unmatched)} unmatched files"
        )
        dropped = [f"  dropped {pair.source}/{pair.name}: {why}" for pair, why in self.dropped]
        return "\n".join([counts, *dropped])


def prepare(
    sources: Sequence[Source | Path], config: TrainConfig, *, cache: Path | None = None
) -> Material:
    """Lists, cleans and splits the pairs of all sources.

    Args:
        sources: folders or tables of pairs.
        config: how patients are named and split, and whether unreadable pairs are left out.
        cache: folder that keeps what was found of each pair.

    Raises:
        DataError: a pair can't be read, or nothing usable is left.
    """
    named = [
        item if isinstance(item, Source) else Source(name=item.resolve().name, path=item)
        for item in sources
    ]
    listings = list_sources(named, patient_pattern=config.patient_pattern)
    kept, dropped = usable_pairs(
        listings, skip_unreadable=config.skip_unreadable, cache=cache, keep=config.keep
    )
    if config.held_out:
        training, validation = split_by_list(kept, Path(config.held_out))
    elif config.folds:
        training, validation = split_fold(
            kept, folds=config.folds, fold=config.fold, seed=config.seed
        )
    else:
        training, validation = split_by_patient(
            kept, fraction=config.validation_fraction, seed=config.seed
        )
    return Material(
        training=tuple(training),
        validation=tuple(validation),
        dropped=tuple(dropped),
        unmatched=tuple(name for listing in listings for name in listing.unmatched),
        weights={
            pair.source: source.weight
            for source, listing in zip(named, listings, strict=True)
            for pair in listing.pairs
        },
    )


def usable_pairs(
    listings: Sequence[Listing],
    *,
    skip_unreadable: bool = False,
    cache: Path | None = None,
    keep: str = "",
) -> tuple[list[Pair], list[tuple[Pair, str]]]:
    """Sorts pairs into usable ones and those with a reason against them.

    Args:
        listings: the pairs of all sources.
        skip_unreadable: leave out what can't be read, instead of an error.
        cache: folder that keeps what was found of each pair.
        keep: names or patterns, as ``source/name`` with commas between, that no rule drops.

    Raises:
        DataError: pairs can't be read and are not to be skipped, or no pair is usable.
    """
    kept: list[Pair] = []
    dropped: list[tuple[Pair, str]] = []
    unreadable: list[str] = []
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
            with_lung += verdict.lung
    if unreadable and not skip_unreadable:
        raise DataError(_unreadable(unreadable))
    _expect_usable(kept, dropped, with_lung)
    return kept, dropped


def _wanted(pair: Pair, keep: str) -> bool:
    name = f"{pair.source}/{pair.name}"
    return any(fnmatchcase(name, pattern.strip()) for pattern in keep.split(","))


def write_material(material: Material, out: Path, provenance: dict[str, Any]) -> None:
    """Records the split, what was dropped and the hashes of what is used."""
    # Absolute paths: an export may start in another folder.
    content = json.dumps(asdict(material), default=lambda path: str(path.resolve()), indent=1)
    (out / MATERIAL).write_text(content)
    write_pairs(out / SPLIT, split_rows(material))
    write_pairs(out / DROPPED, material.dropped)
    facts = {
        "data_sha256": data_hash((*material.training, *material.validation)),
        "split_sha256": split_hash(material.training, material.validation),
        "unmatched": list(material.unmatched),
        "sources": [
            {"name": name, "weight": weight} | _counts(material, name)
            for name, weight in material.weights.items()
        ],
    }
    (out / PROVENANCE).write_text(json.dumps(facts | provenance, indent=2) + "\n")


def read_material(out: Path) -> Material:
    """The slices of a run, as ``write_material`` recorded them.

    Raises:
        DataError: the record is missing or damaged.
    """
    try:
        content = json.loads((out / MATERIAL).read_text())
        return Material(
            training=tuple(_pair(entry) for entry in content["training"]),
            validation=tuple(_pair(entry) for entry in content["validation"]),
            dropped=tuple((_pair(entry), reason) for entry, reason in content["dropped"]),
            unmatched=tuple(content["unmatched"]),
            weights=content.get("weights", {}),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{out / MATERIAL}: the run's record of its slices is missing or damaged; start its "
            "command again, which writes it anew"
        ) from error


def _pair(entry: dict[str, Any]) -> Pair:
    files = ("image", "mask", "airway")
    paths: dict[str, Any] = {name: Path(entry[name]) for name in files if entry.get(name)}
    return Pair(**(entry | paths))


def split_rows(material: Material) -> list[tuple[Pair, str]]:
    """Each used pair with its side of the split."""
    rows = [(pair, "training") for pair in material.training]
    return rows + [(pair, "validation") for pair in material.validation]


def _counts(material: Material, source: str) -> dict[str, int]:
    sides = {
        "training": material.training,
        "validation": material.validation,
        "dropped": tuple(pair for pair, _ in material.dropped),
    }
    return {side: sum(pair.source == source for pair in pairs) for side, pairs in sides.items()}


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
