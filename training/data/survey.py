"""Tells what folders of slices hold, before anything is trained on them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.data.clean import suspect
from training.data.dataset import Pair, Sample, file_hash, read_raw_mask, read_sample
from training.data.intensity import pseudo_hu
from training.data.likeness import Twins, find_twins, fingerprint
from training.data.material import unknown_patients
from training.data.sheet import IGNORED, REJECTED, TRUTH, Tile, contact_sheet, to_picture
from training.data.sources import Source, list_sources
from training.errors import DataError

SHOWN_KEPT, SHOWN_DROPPED = 36, 120
"""Tiles of a contact sheet: a sample of what is kept, and of what is dropped all, within reason."""
SHOWN_HU = (-1200.0, 300.0)
"""Window of the tiles: lung with its vessels, and where tissue ends."""
LISTED = 20
"""Entries of one kind in the printed report; the JSON holds all."""
MOST_MASK_VALUES = 16
"""Distinct values of masks that are listed; more are grey edges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that speaks against a slice or a file.

    Attributes:
        code: stable name: ``unreadable``, ``unmatched``, ``duplicate``, ``near_duplicate`` or a
            rule of ``training.data.clean``.
        name: the slice, as ``source/name``, or the file.
        reason: one sentence.
    """

    code: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceFacts:
    """What is known of one readable pair.

    Attributes:
        name: as ``source/name``.
        patient: whose slice it is.
        size: (rows, columns).
        unit: of the intensities.
        lowest, highest: of the intensities.
        spacing_mm: (row, column), None when unknown.
        mask_values: distinct values of the mask file, at most ``MOST_MASK_VALUES``.
        lung_fraction: share of the slice.
    """

    name: str
    patient: str
    size: tuple[int, int]
    unit: str
    lowest: float
    highest: float
    spacing_mm: tuple[float, float] | None
    mask_values: tuple[float, ...]
    lung_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was found.

    Attributes:
        pairs: pairs found by name.
        usable: pairs that nothing speaks against.
        slices: facts of each readable pair.
        findings: everything that speaks against something.
        unknown: slices whose patient nothing tells, as ``source/name``.
    """

    pairs: int
    usable: int
    slices: tuple[SliceFacts, ...]
    findings: tuple[Finding, ...]
    unknown: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Counts, ranges and means, as JSON values."""
        facts = self.slices
        codes = Counter(finding.code for finding in self.findings)
        units = {
            unit: _range(f for f in facts if f.unit == unit)
            for unit in sorted({f.unit for f in facts})
        }
        spacings = Counter(
            "unknown" if f.spacing_mm is None else f"{f.spacing_mm[0]:.3g} x {f.spacing_mm[1]:.3g}"
            for f in facts
        )
        return {
            "pairs": self.pairs,
            "usable": self.usable,
            "patients": len({(f.name.split("/")[0], f.patient) for f in facts}),
            "patients_unknown": len(self.unknown),
            "sizes": dict(Counter(f"{f.size[0]} x {f.size[1]}" for f in facts).most_common()),
            "intensities": units,
            "spacing_mm": dict(spacings.most_common()),
            "mask_values": dict(
                Counter(_mask_values(f.mask_values) for f in facts).most_common(LISTED)
            ),
            "mean_lung_fraction": float(np.mean([f.lung_fraction for f in facts])) if facts else 0,
            "without_lung": sum(f.lung_fraction == 0 for f in facts),
            "findings": dict(codes.most_common()),
        }

    def describe(self) -> str:
        """The summary and the findings in words."""
        lines = []
        for key, value in self.summary().items():
            text = value
            if isinstance(value, dict):
                text = "; ".join(f"{name}: {entry}" for name, entry in value.items()) or "none"
            elif isinstance(value, float):
                text = f"{value:.3f}"
            lines.append(f"{key.replace('_', ' '):20s} {text}")
        lines += [unknown_patients(self.unknown)] if self.unknown else []
        lines += [
            f"  {finding.code}: {finding.name}: {finding.reason}"
            for finding in self.findings[:LISTED]
        ]
        if len(self.findings) > LISTED:
            lines.append(f"  and {len(self.findings) - LISTED} more; --json FILE lists them all")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Writes summary, findings and the facts of each slice as JSON."""
        content = self.summary() | {
            "findings_by_slice": [asdict(finding) for finding in self.findings],
            "slices": [asdict(facts) for facts in self.slices],
        }
        path.write_text(json.dumps(content, indent=1) + "\n")


def survey(sources: Sequence[Source], *, patient_pattern: str, sheet: Path | None = None) -> Survey:
    """Reads every pair once, one at a time.

    Args:
        sources: folders or tables of pairs.
        patient_pattern: regular expression that names the patient.
        sheet: file for a contact sheet of outlined slices and of everything dropped.

    Raises:
        DataError: a source is missing or holds no pair.
    """
    listings = list_sources(sources, patient_pattern=patient_pattern)
    pairs = [pair for listing in listings for pair in listing.pairs]
    findings = [
        Finding(code="unmatched", name=name, reason="no partner of the same name")
        for listing in listings
        for name in listing.unmatched
    ]
    facts: list[SliceFacts] = []
    prints: list[np.ndarray] = []
    readable: list[Pair] = []
    against: dict[Pair, Finding] = {}
    for pair in pairs:
        try:
            sample = read_sample(pair)
            facts.append(_facts(sample))
        except DataError as error:
            against[pair] = Finding(code="unreadable", name=_name(pair), reason=str(error))
            continue
        prints.append(fingerprint(sample.scan.values[0]))
        readable.append(pair)
        values, unit = sample.scan.values[0], sample.scan.unit
        suspicion = suspect(values, sample.mask, sample.ignored, unit=unit)
        if suspicion is not None:
            against[pair] = Finding(code=suspicion.code, name=_name(pair), reason=suspicion.reason)
    twins = find_twins(readable, prints, [(file_hash(p.image), p.index) for p in readable])
    against |= _copies(twins, against)
    findings += against.values()
    findings += _near(twins)
    if sheet is not None:
        _write_sheet([pair for pair in pairs if pair not in against], against, sheet)
    return Survey(
        pairs=len(pairs),
        usable=len(pairs) - len(against),
        slices=tuple(facts),
        findings=tuple(findings),
        unknown=tuple(name for listing in listings for name in listing.unknown),
    )


def _facts(sample: Sample) -> SliceFacts:
    values = sample.scan.values[0]
    labels = np.unique(read_raw_mask(sample.pair))
    return SliceFacts(
        name=_name(sample.pair),
        patient=sample.pair.patient,
        size=sample.scan.size,
        unit=sample.scan.unit,
        lowest=float(values.min()),
        highest=float(values.max()),
        spacing_mm=sample.scan.spacing_mm,
        mask_values=tuple(float(value) for value in labels[:MOST_MASK_VALUES]),
        lung_fraction=float(sample.mask.mean()),
    )


def _copies(twins: Twins, known: dict[Pair, Finding]) -> dict[Pair, Finding]:
    return {
        later: Finding(
            code="duplicate", name=_name(later), reason=f"the same slice as {_name(first)}"
        )
        for first, later in twins.same
        if later not in known
    }


def _near(twins: Twins) -> list[Finding]:
    return [
        Finding(
            code="near_duplicate",
            name=_name(later),
            reason=f"looks like {_name(first)} (correlation {likeness:.3f}) of another patient: "
            "both stay on one side of the split; name them as one where they are",
        )
        for first, later, likeness in twins.alike
        if (first.source, first.patient) != (later.source, later.patient)
    ]


def _write_sheet(kept: Sequence[Pair], dropped: dict[Pair, Finding], path: Path) -> None:
    places = np.linspace(0, len(kept) - 1, min(len(kept), SHOWN_KEPT)).astype(int)
    tiles = [_tile(pair, finding) for pair, finding in list(dropped.items())[:SHOWN_DROPPED]]
    tiles += [_tile(kept[place], None) for place in places]
    contact_sheet(tiles).save(path, format="PNG")


def _tile(pair: Pair, finding: Finding | None) -> Tile:
    try:
        sample = read_sample(pair)
    except DataError:
        return Tile(
            grey=np.zeros((64, 64), np.uint8),
            title=f"{pair.name} {finding.reason if finding else ''}",
            title_colour=REJECTED,
        )
    grey = to_picture(np.clip(pseudo_hu(sample.scan), *SHOWN_HU))
    if finding is None:
        outlines = [(sample.ignored, IGNORED), (sample.mask, TRUTH)]
        return Tile(grey=grey, title=pair.name, outlines=outlines)
    return Tile(
        grey=grey,
        title=f"{pair.name} {finding.code}: {finding.reason}",
        outlines=[(sample.ignored, IGNORED), (sample.mask, REJECTED)],
        title_colour=REJECTED,
    )


def _name(pair: Pair) -> str:
    return f"{pair.source}/{pair.name}"


def _range(facts: Iterable[SliceFacts]) -> dict[str, float]:
    ranges = [(f.lowest, f.highest) for f in facts]
    return {
        "slices": len(ranges),
        "lowest": min(low for low, _ in ranges),
        "highest": max(high for _, high in ranges),
    }


def _mask_values(values: tuple[float, ...]) -> str:
    if len(values) == MOST_MASK_VALUES:
        return "grey edges"
    return ", ".join(f"{value:g}" for value in values)
