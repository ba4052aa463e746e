"""Native decoders of compressed frames, called in a decoder process and nowhere else.

GDCM, CharLS and OpenJPEG read what anybody may send, and a damaged stream can make them crash,
hang or take much memory. The service's own process reaches them through ``decoders``.
"""

from __future__ import annotations

import importlib

from lungseg.formats.decoder_wire import CodedFrame

JPEG = tuple(f"1.2.840.10008.1.2.4.{last}" for last in (50, 51, 57, 70))
"""Transfer syntaxes of JPEG: baseline, extended and two of lossless."""
JPEG_LS = tuple(f"1.2.840.10008.1.2.4.{last}" for last in (80, 81))
JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{last}" for last in (90, 91, 201, 202, 203))
"""Those of JPEG 2000, the last three in its high-throughput form."""
_LIBRARIES = ("gdcm", "jpeg_ls", "openjpeg.utils")


def load() -> None:
    """Imports the libraries, so that processes forked later share them."""
    for name in _LIBRARIES:
        importlib.import_module(name)


def decode(frame: CodedFrame) -> bytes | bytearray:
    """Little-endian samples, row by row.

    Raises:
        Exception: whatever a library makes of a broken stream.
    """
    if frame.syntax in JPEG:
        return _by_gdcm(frame)
    if frame.syntax in JPEG_LS:
        import jpeg_ls

        samples, _ = jpeg_ls.decode_pixel_data(frame.content)
        return samples
    from openjpeg.utils import Version, decode_pixel_data

    return bytes(decode_pixel_data(frame.content, version=Version.v2))


def _by_gdcm(frame: CodedFrame) -> bytes:
    """JPEG by GDCM itself: pydicom's way there refuses 12-bit JPEG Extended.

    The samples of 12-bit JPEG Extended were compared with DCMTK's, bit for bit.
    """
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame.content)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((frame.columns, frame.rows, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(frame.syntax)))
    bits = (1, 8 * frame.sample_bytes, frame.bits_stored, frame.bits_stored - 1)
    image.SetPixelFormat(gdcm.PixelFormat(*bits, int(frame.signed)))
    # GDCM hands out bytes as text
    return image.GetBuffer().encode("utf-8", "surrogateescape")
