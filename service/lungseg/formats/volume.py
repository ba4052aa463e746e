"""Bytes to ``Volume``: finds the format in the content, checks limits, dispatches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lungseg.core.calibration import has_offset
from lungseg.core.errors import (
    InvalidParameter,
    LungsegError,
    MalformedRequest,
    SeveralVolumes,
    TooManyItems,
    UnsupportedMediaType,
    VolumeTooLarge,
)
from lungseg.core.geometry import geometry_notes
from lungseg.core.types import Scan, Unit
from lungseg.core.volume import Progress, Volume, VolumeLimits, silent
from lungseg.formats.archive import ArchiveLimits, Member, in_memory, is_hidden, open_archive
from lungseg.formats.decoders import DecodeFrame
from lungseg.formats.dicom_series import SeriesReader
from lungseg.formats.grid import GridOptions
from lungseg.formats.grids import is_grid, read_grid
from lungseg.formats.sniff import DICOM, is_zip, sniff

HEAD_BYTES = 4096
"""Tells what a file is."""
THREADS = 2
"""Slices decoded at a time, unless somebody says otherwise."""
SAMPLE = 100_000
"""About as many voxels show whether a volume's intensities have their offset."""


def read_volume(  # noqa: PLR0913 - what callers may say of a volume, and how it is read
    files: Sequence[Member | bytes | memoryview],
    *,
    limits: VolumeLimits | None = None,
    series: str | None = None,
    volume: int | None = None,
    unit: Unit | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    decode: DecodeFrame | None = None,
    threads: int = THREADS,
    progress: Progress = silent,
) -> Volume:
    """Reads one CT volume.

    Args:
        files: one file (a zip archive, an enhanced DICOM object or a file of another format), or
            the instances of a series in any order, with whatever lies beside them.
        limits: what is accepted.
        series: SeriesInstanceUID of the volume, where several were sent; by default the one that
            reaches furthest along the body.
        volume: index of a phase, where there are several at one place; these are refused else.
        unit: of values that no header calibrates; ignored for DICOM.
        spacing_mm: (slice, row, column) of an array that carries none; ignored else.
        decode: decodes compressed DICOM frames; None for the decoder processes that all share.
        threads: slices that are decoded at a time.
        progress: hears (stage, done, total) of each file and slice; what it raises ends the work.

    Returns:
        The volume, its slices in the order along their normal. Notes of its scan say what is odd
        about its geometry and intensities.

    Raises:
        MalformedRequest, TooManyItems, BodyTooLarge, VolumeTooLarge, ImageTooLarge: there is
            nothing, an archive is damaged, encrypted or a bomb, or there is too much of it.
        UnsupportedMediaType, NotCT, NotGrey, UndecodableImage: none of the files is a CT slice,
            or one of the chosen series cannot be decoded.
        SeveralVolumes, InconsistentGeometry: the files do not say which volume is meant, or where
            their slices lie.
        InvalidParameter: there is no such series or phase, or values that no header calibrates
            do not look like HU and nobody says what they are.
        DecoderUnavailable: there is no process for a compressed DICOM frame.
    """
    limits = limits or VolumeLimits()
    if volume is not None and volume < 0:
        raise InvalidParameter("expected a volume of 0 or more, received less")
    members = _members(files, limits)
    grid = _only_grid(members)
    if grid is not None:
        options = GridOptions(
            limits=limits, volume=volume, unit=unit, spacing_mm=spacing_mm, progress=progress
        )
        found = read_grid(grid.read(), options)
    else:
        reader = SeriesReader(
            limits=limits,
            series=series,
            volume=volume,
            decode=decode,
            threads=threads,
            progress=progress,
        )
        found = reader.read(members)
    return replace(found, scan=_with_notes(found.scan))


def _only_grid(members: Sequence[Member]) -> Member | None:
    """The one file of a regular grid (NIfTI and its like); None where there is DICOM.

    Raises:
        UnsupportedMediaType: the only file is of no accepted format.
        SeveralVolumes: there are several.
        UndecodableImage: the only file is packed and damaged.
    """
    grids: list[Member] = []
    for member in members:
        if is_hidden(member.filename):
            continue
        try:
            head = member.head(HEAD_BYTES)
            if sniff(head) == DICOM:
                return None
            if is_grid(head):
                grids.append(member)
        except LungsegError:  # one of many may be damaged
            if len(members) == 1:
                raise
    if len(members) == 1 and not grids:
        raise UnsupportedMediaType(
            "expected DICOM, NIfTI-1, NRRD, MHA or NPY content, or a zip, received none of these"
        )
    if len(grids) > 1:
        raise SeveralVolumes(f"expected one volume, received {len(grids)} files of volumes")
    return grids[0] if grids else None


def _members(files: Sequence[Member | bytes | memoryview], limits: VolumeLimits) -> list[Member]:
    """The files themselves, or those of the only one, which is an archive."""
    members = [one if isinstance(one, Member) else in_memory(one) for one in files]
    if not members or not any(one.size_bytes for one in members):
        raise MalformedRequest("expected the bytes of a CT volume, received none")
    if len(members) == 1 and is_zip(members[0].head(HEAD_BYTES)):
        archive = ArchiveLimits(
            max_items=limits.max_files,
            max_item_bytes=limits.max_bytes,
            max_total_bytes=limits.max_bytes,
        )
        members = open_archive(members[0].read(), archive, hidden=True)
        if not members:
            raise MalformedRequest("expected files in the zip archive, received none")
    if len(members) > limits.max_files:
        raise TooManyItems(f"expected at most {limits.max_files} files, received {len(members)}")
    sizes, most = [one.size_bytes for one in members], limits.max_bytes
    if max(sizes) > most:
        raise VolumeTooLarge(f"expected at most {most} bytes a file, received more")
    most = most if limits.max_sent_bytes is None else limits.max_sent_bytes
    if sum(sizes) > most:
        raise VolumeTooLarge(f"expected at most {most} bytes in all, received more")
    return members


def _with_notes(scan: Scan) -> Scan:
    """The scan with codes of what its places and values show."""
    notes = (*scan.notes, *geometry_notes(scan))
    every = max(1, scan.values.size // SAMPLE)
    if scan.unit == "HU" and has_offset(scan.values.reshape(-1)[::every]):
        notes = (*notes, "intensity_offset_suspect")
    return replace(scan, notes=tuple(dict.fromkeys(notes)))
