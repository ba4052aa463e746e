"""What some content is, found in its bytes: never by a file's name, nor by what a client says."""

from __future__ import annotations

DICOM, NPY, TIFF = "application/dicom", "application/x-npy", "image/tiff"
PICTURES = ("image/png", "image/jpeg", TIFF, "image/bmp")
ZIP_SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
_SIGNATURES = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    TIFF: (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    "image/bmp": (b"BM",),
    NPY: (b"\x93NUMPY",),
}
"""First bytes; DICOM has its own rules."""
_PREFIX = slice(128, 132)
SNIFFED_BYTES = 132
"""What the beginning of a file must have to say what it is; no DICOM file is shorter."""


def sniff(content: bytes) -> str | None:
    """Names the media type of the content, None when it is unknown.

    The 128 bytes before DICOM's prefix are anybody's (PS3.10 7.1). In many files they are the
    beginning of a TIFF, so that viewers of pictures show something: the prefix decides.
    """
    if _has_prefix(content):
        return DICOM
    for media_type, signatures in _SIGNATURES.items():
        if content.startswith(signatures):
            return media_type
    return DICOM if _lost_its_preamble(content) else None


def is_zip(content: bytes) -> bool:
    """Whether the content is a zip archive, and no DICOM file whose preamble looks like one."""
    return content.startswith(ZIP_SIGNATURES) and not _has_prefix(content)


def _has_prefix(content: bytes) -> bool:
    return content[_PREFIX] == b"DICM"


def _lost_its_preamble(content: bytes) -> bool:
    """A data element of group 0002 or 0008, little or big endian, at the very start."""
    group, element, kind = content[:2], content[2:4], content[4:6]
    if len(content) < SNIFFED_BYTES or not (kind.isalpha() or content[5:8] == b"\0\0\0"):
        return False
    little = group in (b"\x02\x00", b"\x08\x00") and element[1] == 0
    return little or (group == b"\x00\x08" and element[0] == 0 and kind.isupper())
