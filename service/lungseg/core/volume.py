"""The values of a volume: its scan, where that came from, and what was left out of it.

A volume is a ``Scan`` of many slices with what only a series has. Nothing in it names a patient,
but ``headers`` and ``nifti_header``, which are for outputs of the same kind as the input alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.core.types import Scan

Progress = Callable[[str, int, int], object]
"""Hears (stage, done, total); what it raises ends the work."""


def silent(_stage: str, _done: int, _total: int) -> None:
    """Hears of progress and does nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeLimits:
    """What a volume may be, checked before it is decoded."""

    max_slices: int = 2000
    """Slices of 0.5 mm of a metre."""
    max_bytes: int = 1 << 30
    """Of a file, of an archive once it is unpacked, and of the values that are made of them."""
    max_sent_bytes: int | None = None
    """Of all files that come together; None for ``max_bytes``."""
    max_pixels: int = 4096 * 4096
    """Rows × columns of a slice."""
    max_files: int = 5000
    """Files that come together: instances, and what lies beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Slices that could be a volume: one group of what was sent."""

    uid: str
    """Its SeriesInstanceUID; empty where it has none."""
    slices: int
    height: int
    width: int
    step_mm: float | None
    """Median distance of neighbouring slices along the normal."""
    kernel: str | None
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """What was sent and is no part of any series, counted by reason."""

    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """How the scan was made, None where the header does not say."""

    kernel: str | None = None
    slice_thickness_mm: float | None = None
    kvp: float | None = None
    contrast: bool | None = None
    manufacturer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One CT volume as it was sent."""

    scan: Scan
    """Slices in order along the normal, in the order of the file where there is but one. Its
    notes hold the codes of geometry: ``missing_slices``, ``gantry_tilt`` and so on."""
    acquisition: Acquisition = Acquisition()
    series: tuple[Series, ...] = ()
    """All candidates, the chosen one among them."""
    dropped: tuple[Dropped, ...] = ()
    affine: NDArray[np.float64] | None = None
    """Of NIfTI, NRRD and MHA: (4, 4) from (slice, row, column, 1) to LPS mm, as the file says it,
    perhaps sheared. None of DICOM, where the slices' own positions say it."""
    headers: tuple[Any, ...] = ()
    """DICOM headers without pixels (``pydicom.Dataset``) in the order of the slices; those of
    frames have what functional groups say at the top level."""
    frames: tuple[int, ...] = ()
    """Of a multi-frame object: the number of each slice's frame, from 1 on."""
    nifti_header: bytes | None = None
    """To be written back on the label map."""
