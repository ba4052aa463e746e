"""DICOM files opened for their pixels; those of many frames stay open until all are read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames

from lungseg.core.errors import UndecodableImage
from lungseg.core.volume import VolumeLimits
from lungseg.formats.archive import Member
from lungseg.formats.decoders import DecodeFrame
from lungseg.formats.dicom_attributes import parse
from lungseg.formats.dicom_deflated import inflate
from lungseg.formats.dicom_pixels import (
    Layout,
    decode_plane,
    read_layout,
    transfer_syntax,
)
from lungseg.formats.pieces import check_fragments
from lungseg.formats.planes import FRAME_READS, SINGLE_FRAMES, Plane

ATTRIBUTES = (
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    dataset: FileDataset
    frames: tuple[bytes, ...] | None
    """Of a compressed file."""


class OpenFiles:
    """Pixels of planes, from threads that share it; ``open`` those of many frames before."""

    def __init__(self, limits: VolumeLimits) -> None:
        self._limits = limits
        self._kept: dict[int, _Opened] = {}

    def open(self, plane: Plane) -> None:
        """Keeps a file of many frames open, for it is parsed once.

        Raises:
            UndecodableImage: it is damaged.
        """
        if plane.frames > 1 and id(plane.source) not in self._kept:
            self._kept[id(plane.source)] = self._opened(plane.source, plane.frames)

    def digest(self, plane: Plane) -> bytes:
        """Of the encoded pixels: the same planes, sent twice, have the same."""
        self.open(plane)
        opened = self._of(plane)
        if opened.frames is not None:
            encoded = opened.frames[plane.frame]
        else:
            length = len(opened.dataset.PixelData) // plane.frames
            encoded = opened.dataset.PixelData[plane.frame * length :][:length]
        return hashlib.sha256(encoded).digest()

    def stored(
        self, plane: Plane, decode: DecodeFrame | None
    ) -> tuple[NDArray[np.integer], Layout]:
        """Stored values of a plane, and how they lie in memory.

        Raises:
            NotGrey, UndecodableImage, DecoderUnavailable: as their names say.
        """
        layout = read_layout(plane.header)
        opened = self._of(plane)
        frame = opened.frames[plane.frame] if opened.frames else None
        values = decode_plane(opened.dataset, layout, decode, index=plane.frame, frame=frame)
        if values.shape != plane.size:
            raise UndecodableImage("expected one plane of Rows x Columns, received another shape")
        return values, layout

    def _of(self, plane: Plane) -> _Opened:
        kept = self._kept.get(id(plane.source))
        return kept or self._opened(plane.source, plane.frames)

    def _opened(self, source: Member, frames: int) -> _Opened:
        reads = FRAME_READS * max(SINGLE_FRAMES, frames)
        content = inflate(source.read(), self._limits.max_pixels)
        dataset = parse(content, ATTRIBUTES, reads)
        dataset.buffer = None
        if not transfer_syntax(dataset).is_encapsulated:
            return _Opened(dataset=dataset, frames=None)
        check_fragments(dataset.PixelData)
        found = (*generate_frames(dataset.PixelData, number_of_frames=frames),)
        if len(found) != frames:
            raise UndecodableImage(f"expected {frames} compressed frames, received others")
        del dataset.PixelData  # the frames are copies
        return _Opened(dataset=dataset, frames=found)
