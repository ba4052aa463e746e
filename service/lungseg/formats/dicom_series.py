"""DICOM files to ``Volume``: sorts out what is no CT, finds the series, decodes its slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lungseg.core.errors import (
    LungsegError,
    NotCT,
    NotGrey,
    UndecodableImage,
    UnsupportedMediaType,
    VolumeTooLarge,
)
from lungseg.core.types import LOSSY, Scan
from lungseg.core.volume import Dropped, Progress, Series, Volume, VolumeLimits
from lungseg.formats.acquisition import acquisition_of, kernel_of
from lungseg.formats.archive import Member
from lungseg.formats.decoders import DecodeFrame
from lungseg.formats.dicom_kind import is_lossy, lacks_modality
from lungseg.formats.opened import OpenFiles
from lungseg.formats.planes import LeftOut, Plane, planes_of
from lungseg.formats.quiet import refusing_damage, silence_decoders
from lungseg.formats.series import Stack, stacks_of
from lungseg.formats.series_choice import choose
from lungseg.formats.slices import Block, SliceReader, check_size

STEP_DIGITS = 4
"""Of a candidate's step in mm: positions are written no finer."""
_NO_CONTENT = {"hidden_file", "not_dicom", "archive", "other_compression"}
"""Reasons that leave nothing of DICOM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesReader:
    """What is wanted of many files, and how it is read.

    Attributes:
        limits: of the volume.
        series: SeriesInstanceUID of the one that is meant, None for the rule's choice.
        volume: index of the phase that is meant.
        decode: decodes compressed frames; None for the decoders that all share.
        threads: slices that are decoded at a time.
        progress: hears of files and slices; what it raises ends the work.
    """

    limits: VolumeLimits
    series: str | None
    volume: int | None
    decode: DecodeFrame | None
    threads: int
    progress: Progress

    def read(self, members: Sequence[Member]) -> Volume:
        """Reads the one volume of the files that is meant.

        Raises:
            LungsegError: see ``read_volume``.
        """
        silence_decoders()
        planes, dropped = self._planes(members)
        if not planes:
            raise _nothing_of(dropped)
        files = OpenFiles(self.limits)
        with refusing_damage():
            stacks = stacks_of(planes, files.digest)
            chosen = choose(stacks, self.series, self.volume)
        check_size(chosen.planes, self.limits)
        reader = SliceReader(
            files=files, decode=self.decode, threads=self.threads, progress=self.progress
        )
        block = reader.read(chosen.planes)
        if chosen.twice:
            dropped["duplicate"] += chosen.twice
        with refusing_damage():
            return _volume(chosen, block, stacks, dropped)

    def _planes(self, members: Sequence[Member]) -> tuple[list[Plane], Counter[str]]:
        """What is CT of the files, and how many are what else."""
        planes: list[Plane] = []
        dropped: Counter[str] = Counter()
        for number, member in enumerate(members, start=1):
            try:
                planes += planes_of(member, self.limits)
            except LeftOut as left_out:
                dropped[left_out.reason] += 1
            if len(planes) > self.limits.max_files:
                raise VolumeTooLarge(
                    f"expected at most {self.limits.max_files} slices of all series together"
                )
            self.progress("read", number, len(members))
        return planes, dropped


def _nothing_of(dropped: Counter[str]) -> LungsegError:
    """Why files without any CT slice are refused."""
    if not set(dropped) - _NO_CONTENT:
        return UnsupportedMediaType("expected DICOM files, received none")
    if "damaged" in dropped:
        return UndecodableImage("expected CT slices, received DICOM files that are damaged")
    if set(dropped) - _NO_CONTENT == {"colour"}:
        return NotGrey("expected one sample per pixel, received colour images")
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    return NotCT(f"expected CT slices, received other objects only: {counts}")


def _volume(chosen: Stack, block: Block, stacks: Sequence[Stack], dropped: Counter[str]) -> Volume:
    headers = tuple(plane.header for plane in chosen.planes)
    return Volume(
        scan=_scan(chosen, block),
        acquisition=acquisition_of(headers[len(headers) // 2]),
        series=tuple(_candidate(stack, chosen=stack is chosen) for stack in stacks),
        dropped=tuple(Dropped(reason=name, count=dropped[name]) for name in sorted(dropped)),
        headers=headers,
        frames=_frames(chosen.planes),
    )


def _scan(stack: Stack, block: Block) -> Scan:
    headers = [plane.header for plane in stack.planes]
    positions = [plane.position_mm for plane in stack.planes if plane.position_mm is not None]
    notes = {
        "not_ct": any(lacks_modality(header) for header in headers),
        LOSSY: any(is_lossy(header) for header in headers),
        "duplicate_slices": stack.twice > 0,
    }
    return Scan(
        values=block.values,
        unit=block.unit,
        media_type="application/dicom",
        spacing_mm=_spacing(stack.planes),
        orientation=stack.orientation,
        positions_mm=np.array(positions) if len(positions) == len(headers) else None,
        reach=block.reach,
        padding=block.padding,
        notes=tuple(code for code, holds in notes.items() if holds),
    )


def _frames(planes: Sequence[Plane]) -> tuple[int, ...]:
    """Numbers of the slices' frames, from 1 on, where any file has several."""
    several = any(plane.frames > 1 for plane in planes)
    return tuple(plane.frame + 1 for plane in planes) if several else ()


def _spacing(planes: Sequence[Plane]) -> tuple[float, float] | None:
    """The middle of the slices' spacings, which differ by rounding at most."""
    known = [plane.spacing_mm for plane in planes if plane.spacing_mm is not None]
    if not known:
        return None
    row, column = np.median(known, axis=0).tolist()
    return row, column


def _candidate(stack: Stack, *, chosen: bool) -> Series:
    first = stack.planes[0]
    return Series(
        uid=first.series,
        slices=len(stack.planes),
        height=first.size[0],
        width=first.size[1],
        step_mm=None if stack.step_mm is None else round(stack.step_mm, STEP_DIGITS),
        kernel=kernel_of(first.header),
        chosen=chosen,
    )
