"""DICOM pixel data to stored values, in every common transfer syntax, with bounded memory.

No decoder is trusted with sizes: before one runs, the image header inside the compressed data
must announce what the file's does, and nothing inflates beyond what Rows and Columns allow.
Native decoders of compressed data run in other processes, see ``decoders``.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from lungseg.core.errors import NotGrey, UndecodableImage
from lungseg.formats import codecs
from lungseg.formats.codestream import Announced, announced, container_bytes
from lungseg.formats.decoder_wire import CodedFrame
from lungseg.formats.decoders import DecodeFrame, shared_decoders
from lungseg.formats.pieces import check_fragments, check_jpeg

BITS_ALLOCATED = (8, 16, 32)
_RLE_HEADER = struct.Struct("<16L")


class Layout(NamedTuple):
    """How one plane of grey pixels is stored (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def dtype(self) -> np.dtype[np.integer]:
        """Little endian."""
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.bits_allocated // 8}")


def read_layout(dataset: FileDataset) -> Layout:
    """The pixels' layout from the header.

    Raises:
        NotGrey: several samples per pixel, or numbers of palette colours.
        UndecodableImage: attributes that contradict each other.
    """
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise NotGrey("expected one sample per pixel, received a colour image")
    if str(dataset.get("PhotometricInterpretation")).strip() == "PALETTE COLOR":
        raise NotGrey("expected grey pixels, received numbers of palette colours")
    allocated = int(dataset.BitsAllocated)
    stored = int(dataset.get("BitsStored") or allocated)
    high_bit = dataset.get("HighBit")
    layout = Layout(
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1 if high_bit is None else int(high_bit),
        signed=int(dataset.get("PixelRepresentation") or 0) == 1,
    )
    if allocated not in BITS_ALLOCATED or not 1 <= stored <= layout.high_bit + 1 <= allocated:
        raise UndecodableImage("expected 8, 16 or 32 bits that hold Bits Stored and High Bit")
    return layout


def decode_plane(
    dataset: FileDataset,
    layout: Layout,
    decode: DecodeFrame | None = None,
    *,
    index: int = 0,
    frame: bytes | None = None,
) -> NDArray[np.integer]:
    """Stored values of a frame as they lie in memory, unused bits included.

    Args:
        dataset: the file.
        layout: of its pixels.
        decode: decodes compressed frames; by default the decoders that all share.
        index: of the frame, where there are several.
        frame: that of a compressed file, where it was found already; by default the only one.

    Returns:
        Signed or unsigned integers, shape (rows, columns).

    Raises:
        UndecodableImage: the frame is not of the announced size or syntax.
        Exception: whatever becomes of broken data.
    """
    syntax = transfer_syntax(dataset)
    if not syntax.is_encapsulated:
        options: dict[str, Any] = {"correct_unused_bits": False}
        decoded, _ = get_decoder(syntax).as_array(dataset, index=index, raw=True, **options)
        return decoded
    if frame is None:
        check_fragments(dataset.PixelData)
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    if syntax == uid.RLELossless:
        return _rle_plane(frame, layout)
    if syntax not in (*codecs.JPEG, *codecs.JPEG_LS, *codecs.JPEG_2000):
        raise UndecodableImage("expected a transfer syntax of CT images, received another")
    if syntax in codecs.JPEG:
        check_jpeg(frame)
    own = announced(frame)
    _check_agreement(own, layout)
    coded = CodedFrame(
        syntax=syntax,
        rows=layout.rows,
        columns=layout.columns,
        sample_bytes=own.sample_bytes,
        bits_stored=layout.bits_stored,
        signed=layout.signed,
        content=frame,
    )
    samples = (decode or shared_decoders().decode)(coded)
    return _with_sign(samples, coded, own, layout)


def _check_agreement(own: Announced, layout: Layout) -> None:
    """Refuses a stream that is not of the file's size, of one sample, or of too few or many bits.

    Its precision may lie beside Bits Stored, as it does in files of common encoders.
    """
    if own[:3] != (layout.rows, layout.columns, 1):
        raise UndecodableImage(
            f"expected compressed pixels of Rows x Columns, {layout.rows} x {layout.columns}, and "
            f"1 sample, received {own.rows} x {own.columns} and {own.samples}"
        )
    least, most = container_bytes(layout.bits_stored), layout.bits_allocated // 8
    if not least <= own.sample_bytes <= most:
        raise UndecodableImage(
            f"expected compressed pixels of {layout.bits_stored} bits in {layout.bits_allocated}, "
            f"as the header says, received {own.precision} bits"
        )


def _with_sign(
    samples: bytearray, coded: CodedFrame, own: Announced, layout: Layout
) -> NDArray[np.integer]:
    """Samples as the file's type, the sign bit taken from where the stream keeps it.

    JPEG-LS knows no signs, and JPEG 2000 may have been told wrong ones: as pydicom has it.
    """
    kind = "i" if layout.signed else "u"
    plane = np.frombuffer(samples, f"<{kind}{coded.sample_bytes}").astype(layout.dtype, copy=False)
    signless = coded.syntax in codecs.JPEG_LS and layout.signed
    if signless or (coded.syntax in codecs.JPEG_2000 and own.signed != layout.signed):
        beside = layout.bits_allocated - own.precision
        plane = (plane << beside) >> beside
    return plane.reshape(layout.rows, layout.columns)


def used_bits(plane: NDArray[np.integer], layout: Layout) -> NDArray[np.integer]:
    """The stored values proper: drops what lies beside them, such as an overlay's bits."""
    above = layout.bits_allocated - 1 - layout.high_bit
    beside = layout.bits_allocated - layout.bits_stored
    if not beside or plane.dtype.itemsize * 8 != layout.bits_allocated:
        return plane
    return (plane << above) >> beside  # sign-extends where the dtype is signed


def transfer_syntax(dataset: FileDataset) -> uid.UID:
    """Of the file; a file that lost its meta header says it by how it could be read."""
    given = dataset.file_meta.get("TransferSyntaxUID") if dataset.file_meta else None
    if given:
        return uid.UID(given)
    implicit, little = dataset.original_encoding
    if not little:
        return uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian


def _rle_plane(frame: bytes, layout: Layout) -> NDArray[np.integer]:
    """PS3.5 annex G: one PackBits segment per byte of a sample, the highest byte first."""
    count, *starts = _RLE_HEADER.unpack_from(frame)
    if count != layout.bits_allocated // 8:
        raise UndecodableImage(f"expected {layout.bits_allocated // 8} RLE segments")
    pixels = layout.rows * layout.columns
    ends = [*starts[1:count], len(frame)]
    segments = [
        _unpack_bits(frame[start:end], pixels)
        for start, end in zip(starts[:count], ends, strict=True)
    ]
    return _as_plane(np.stack(segments[::-1], axis=1).tobytes(), layout)


def _unpack_bits(segment: bytes, size: int) -> NDArray[np.uint8]:
    """Undoes PackBits; stops at ``size`` bytes, whatever more there is."""
    unpacked = bytearray()
    place, last = 0, len(segment) - 1
    while place < last and len(unpacked) < size:
        head = segment[place]
        if head < 128:
            unpacked += segment[place + 1 : place + 2 + head]
            place += 2 + head
        else:
            if head > 128:
                unpacked += segment[place + 1 : place + 2] * (257 - head)
            place += 2 if head > 128 else 1
    if len(unpacked) < size:
        raise UndecodableImage("expected RLE pixels of Rows x Columns, received fewer")
    return np.frombuffer(unpacked, np.uint8, size)


def _as_plane(decoded: bytes, layout: Layout) -> NDArray[np.integer]:
    plane = np.frombuffer(decoded, layout.dtype)
    return plane[: layout.rows * layout.columns].reshape(layout.rows, layout.columns)
