"""The pixels of a series: into one array of HU, several slices at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lungseg.core.errors import VolumeTooLarge
from lungseg.core.types import BoolArray, IntensityArray, Reach, Unit
from lungseg.core.volume import Progress, VolumeLimits
from lungseg.formats.decoders import DecodeFrame
from lungseg.formats.dicom_values import intensities, padding_of, reach_of
from lungseg.formats.image import check_pixels, checked
from lungseg.formats.opened import OpenFiles
from lungseg.formats.planes import Plane
from lungseg.formats.quiet import refusing_damage
from lungseg.formats.voxels import Voxels

WAITING = 4
"""Slices that are decoded before they are asked for, so that no thread waits."""
VALUE_BYTES = 2
"""Of a voxel in HU, where they are whole numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One slice, decoded."""

    values: IntensityArray
    unit: Unit
    padding: BoolArray | None
    reach: Reach | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """All slices, in one array of shape (Z, Y, X)."""

    values: IntensityArray
    """int16 where all values are whole and fit, else float32."""
    unit: Unit
    padding: BoolArray | None
    reach: Reach | None


def check_size(planes: Sequence[Plane], limits: VolumeLimits) -> None:
    """Refuses more slices, pixels or voxels than are accepted, before they are decoded.

    Raises:
        VolumeTooLarge, ImageTooLarge, UndecodableImage: as their names say.
    """
    height, width = planes[0].size
    check_pixels(height, width, limits.max_pixels)
    if len(planes) > limits.max_slices:
        raise VolumeTooLarge(f"expected at most {limits.max_slices} slices, received {len(planes)}")
    if len(planes) * height * width * VALUE_BYTES > limits.max_bytes:
        raise VolumeTooLarge(
            f"expected at most {limits.max_bytes} bytes of values, received "
            f"{len(planes)} slices of {height} x {width}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceReader:
    """How slices are decoded.

    Attributes:
        files: where their pixels are.
        decode: decodes compressed frames; None for the decoders that all share.
        threads: slices at a time.
        progress: hears of each slice; what it raises ends the work.
    """

    files: OpenFiles
    decode: DecodeFrame | None
    threads: int
    progress: Progress

    def read(self, planes: Sequence[Plane]) -> Block:
        """Decodes planes of one size in their order.

        Raises:
            UndecodableImage, DecoderUnavailable: of one of them.
        """
        voxels = Voxels((len(planes), *planes[0].size))
        units: set[Unit] = set()
        reaches: list[Reach | None] = []
        for index, one in enumerate(self._slices(planes)):
            voxels.put(index, one.values, one.padding)
            units.add(one.unit)
            reaches.append(one.reach)
            self.progress("decode", index + 1, len(planes))
        return Block(
            values=voxels.values,
            unit="HU" if units == {"HU"} else "grey level",
            padding=voxels.unmeasured,
            reach=_common_reach(reaches),
        )

    def _slices(self, planes: Sequence[Plane]) -> Iterator[Slice]:
        """One after the other, and a few ahead."""
        with refusing_damage():
            for plane in planes:
                self.files.open(plane)
        pool = ThreadPoolExecutor(self.threads)
        ahead: deque[Future[Slice]] = deque()
        try:
            for plane in planes:
                ahead.append(pool.submit(self._slice, plane))
                if len(ahead) > self.threads + WAITING:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _slice(self, plane: Plane) -> Slice:
        with refusing_damage():
            stored, layout = self.files.stored(plane, self.decode)
            padding = padding_of(plane.header, stored, layout)
            values, unit = intensities(plane.header, stored, layout, padding, whole=True)
            return Slice(
                values=values if values.dtype == np.int16 else checked(values),
                unit=unit,
                padding=padding if padding is not None and padding.any() else None,
                reach=reach_of(plane.header, layout) if unit == "HU" else None,
            )


def _common_reach(reaches: Sequence[Reach | None]) -> Reach | None:
    """What every slice can show; None where one of them does not say."""
    known = [one for one in reaches if one is not None]
    if len(known) < len(reaches):
        return None
    return Reach(
        low=max(one.low for one in known),
        high=min(one.high for one in known),
        step=max(one.step for one in known),
    )
