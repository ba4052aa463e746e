"""Numbers the air in the body and proposes what of it is lung."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.labelling.airways import find_airways
from training.labelling.body import CORE_MM, enclosed_air, smooth
from training.labelling.shapes import Mask, eroded, regions
from training.labelling.stacks import Stack, digest_of

Kind = Literal["lung", "gas"]

LEAST_AREA_MM2, LEAST_VOLUME_MM3 = 30.0, 300.0
"""Smaller regions of a slice, of a volume, get no number: noise, bubbles, ends of bronchi."""
SURE_LUNG_MM3 = 400_000.0
"""What is larger is lung, however dark: bowel and stomach hold less gas."""
LEAST_SHARE = 0.01
"""Of the largest lung of a volume; what is smaller is bowel with stool far more often."""
GAS_HU = -940
"""Median below which a region is gas: lung holds blood, even with emphysema."""
BRIGHT_HU = -500
"""Median above which a region is fat or stool with air in it, or a blurred edge of something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A connected region of air in the body, without the airways.

    Attributes:
        number: in the stack, from 1 at the largest.
        kind: what it is proposed to be.
    """

    number: int
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What thresholds and anatomy say of a stack.

    Attributes:
        stack: the slices.
        numbers: the component of each voxel, 0 for none, int32, shape (Z, Y, X).
        components: by number.
        air: what is dark in the body, bool, shape (Z, Y, X).
        airway: trachea and main bronchi, a part of the air.
        body: bool, shape (Z, Y, X).
    """

    stack: Stack
    numbers: NDArray[np.int32]
    components: tuple[Component, ...]
    air: Mask
    airway: Mask
    body: Mask

    def proposed_lung(self) -> frozenset[int]:
        """Numbers of the components that are proposed as lung."""
        return frozenset(item.number for item in self.components if item.kind == "lung")

    def on_slice(self, index: int) -> list[Component]:
        """The components that a slice shows."""
        shown = set(np.unique(self.numbers[index]).tolist())
        return [item for item in self.components if item.number in shown]

    def digest(self, index: int) -> str:
        """A hash of all that is proposed for a slice: what a decision was said of."""
        kinds = np.zeros(len(self.components) + 1, np.uint8)
        for item in self.components:
            kinds[item.number] = 1 if item.kind == "lung" else 2
        numbers = self.numbers[index]
        planes = (numbers, kinds[numbers], self.airway[index])
        return digest_of(np.stack([plane.astype(np.int32) for plane in planes]))


def propose(stack: Stack) -> Proposal:
    """Finds lung, airways and gas in a stack."""
    calm = smooth(stack.hu)
    body, air = enclosed_air(stack, calm)
    airway = find_airways(stack, calm, body, air)
    numbers = _numbered(air & ~airway, stack)
    components: list[Component] = []
    least = 0.0
    for number, box in enumerate(ndimage.find_objects(numbers), 1):
        size = int((numbers[box] == number).sum())
        kind = _kind(numbers[box] == number, calm[box], stack) if size >= least else "gas"
        if kind == "lung" and stack.is_volume:
            least = least or LEAST_SHARE * size
        components.append(Component(number=number, kind=kind))
    return Proposal(
        stack=stack,
        numbers=numbers,
        components=tuple(components),
        air=air,
        airway=airway,
        body=body,
    )


def _numbered(air: Mask, stack: Stack) -> NDArray[np.int32]:
    """Connected regions that are large enough, the largest first."""
    labels, sizes = regions(air, corners=False)
    row, column = stack.spacing_mm[1:]
    voxel_mm3 = float(np.prod(stack.spacing_mm))
    least = LEAST_VOLUME_MM3 / voxel_mm3 if stack.is_volume else LEAST_AREA_MM2 / (row * column)
    sizes[0] = 0
    order = np.argsort(-sizes, kind="stable")
    kept = order[sizes[order] >= least]
    renumbered = np.zeros(len(sizes), np.int32)
    renumbered[kept] = np.arange(1, len(kept) + 1)
    return renumbered[labels]


def _kind(region: Mask, values: NDArray[np.int16], stack: Stack) -> Kind:
    """What the brightness of a component says, its blurred rim left out."""
    if region.sum() * float(np.prod(stack.spacing_mm)) >= SURE_LUNG_MM3:
        return "lung"
    cores = np.stack([eroded(plane, CORE_MM, stack.spacing_mm[1:]) for plane in region])
    median = float(np.median(values[cores if cores.any() else region]))
    return "lung" if GAS_HU <= median <= BRIGHT_HU else "gas"
