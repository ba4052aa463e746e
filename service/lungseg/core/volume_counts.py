"""The lung of a volume, plane by plane, and counted by lung and third."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from lungseg.core.axial import AxialPlanes
from lungseg.core.measured import padding_within
from lungseg.core.regions import bounding_box
from lungseg.core.tally import Tally
from lungseg.core.types import LEFT, RIGHT, UNSIDED, IntensityArray, LabelArray, Scan

LABELS = UNSIDED + 1
"""0 for what is no lung, too."""
KINDS = {RIGHT: (0, 1, 2), LEFT: (3, 4, 5), UNSIDED: (6, 6, 6)}
"""What is counted apart: the lower, middle and upper third of each lung, and the rest."""
ALL_KINDS = tuple(sorted(set(chain(*KINDS.values()))))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneLung:
    """The lung of one axial plane."""

    values: IntensityArray
    """Intensities where something was measured, flat."""
    labels: LabelArray
    """Of these values, flat."""
    voxels: NDArray[np.int64]
    """How many of each label there are, measured or not, shape (4,)."""
    areas_mm2: NDArray[np.float64]
    """The same in mm², NaN where pixels have no known size, 0 where there is no lung."""

    @classmethod
    def of(cls, planes: AxialPlanes, scan: Scan, labels: LabelArray) -> PlaneLung:
        """Looks at the one slice of a scan, which is one of the planes, and at its labels."""
        box = bounding_box(labels > 0)
        inside = labels[box]
        voxels, areas = np.zeros(LABELS, np.int64), np.zeros(LABELS)
        for label in KINDS:
            mask = inside == label
            voxels[label] = np.count_nonzero(mask)
            if voxels[label]:
                area = planes.area_mm2(mask, box)
                areas[label] = np.nan if area is None else area
        measured = inside > 0
        padding = padding_within(scan, box, measured) if inside.size else None
        if padding is not None:
            measured &= ~padding
        values = scan.values[0][box]
        return cls(values=values[measured], labels=inside[measured], voxels=voxels, areas_mm2=areas)


@dataclass(frozen=True, slots=True, kw_only=True)
class LungCounts:
    """All lung by kind; arrays have shape (7,), in the order of ``KINDS``."""

    voxels: NDArray[np.int64]
    volumes_ml: NDArray[np.float64]
    """NaN where a distance that it needs is unknown, 0 where there is no lung."""
    tally: Tally

    @classmethod
    def of(cls, planes: AxialPlanes, found: list[PlaneLung]) -> LungCounts:
        """Counts all planes; thirds come from the volumes, else from the voxels."""
        voxels = np.stack([lung.voxels for lung in found])  # (planes, 4)
        volumes = np.stack([lung.areas_mm2 for lung in found]) / 1000
        heights = np.full(len(found), np.nan) if planes.heights_mm is None else planes.heights_mm
        # No lung is none of it, however high a plane may be.
        volumes = np.where(voxels > 0, volumes * heights[:, None], 0.0)
        kinds = _kinds(voxels if np.isnan(volumes).any() else volumes)
        tally = Tally.covering([lung.values for lung in found], len(ALL_KINDS))
        for lung, kind, repeats in zip(found, kinds, planes.repeats.tolist(), strict=True):
            tally.add(lung.values, kind[lung.labels], repeats)
        by_kind = [
            np.bincount(kinds.ravel(), of.ravel(), len(ALL_KINDS)) for of in (voxels, volumes)
        ]
        return cls(
            voxels=by_kind[0].astype(np.int64),
            volumes_ml=by_kind[1].astype(np.float64),
            tally=tally,
        )


def _kinds(amounts: NDArray[np.float64 | np.int64]) -> LabelArray:
    """The kind of each label in each plane, by its amounts there; both have shape (planes, 4).

    A plane belongs to the third in which the middle of its own amount lies, counted from the
    first plane on: thirds are whole planes, as equal as these allow.
    """
    kinds = np.zeros(amounts.shape, np.uint8)
    for label, names in KINDS.items():
        amount = amounts[:, label]
        middle = np.cumsum(amount) - amount / 2
        third = np.floor(3 * middle / max(amount.sum(), 1e-9)).astype(np.intp)
        kinds[:, label] = np.array(names)[third.clip(0, 2)]
    return kinds
