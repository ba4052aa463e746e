"""Files of one regular grid to ``Volume``: finds the format in the content, and reads it."""

from __future__ import annotations

from collections.abc import Callable

from lungseg.core.errors import LungsegError, UndecodableImage
from lungseg.core.volume import Volume
from lungseg.formats.grid import GridOptions
from lungseg.formats.metaimage import is_metaimage, read_metaimage
from lungseg.formats.nifti import is_nifti, read_nifti
from lungseg.formats.npy import is_npy, read_npy_volume
from lungseg.formats.nrrd import is_nrrd, read_nrrd
from lungseg.formats.source import Source

SNIFFED_BYTES = 512
"""What of a file says what it is, unpacked where it is gzip."""
_Read = Callable[[Source, GridOptions], Volume]
_READERS: tuple[tuple[Callable[[bytes], bool], _Read], ...] = (
    (is_nifti, read_nifti),
    (is_nrrd, read_nrrd),
    (is_npy, read_npy_volume),
    (is_metaimage, read_metaimage),
)


def is_grid(content: bytes | memoryview) -> bool:
    """Whether some content is NIfTI-1, NRRD, MHA or NPY, each perhaps within gzip.

    Raises:
        UndecodableImage: it is gzip, and its very beginning is damaged.
    """
    return _reader(Source.of(content)) is not None


def read_grid(content: bytes | memoryview, options: GridOptions) -> Volume:
    """Reads a file that ``is_grid``; values lie in the volume as they do in the file.

    Args:
        content: the whole file.
        options: what the caller says of it, and the limits.

    Raises:
        VolumeTooLarge: it announces more than is accepted; found before anything is unpacked.
        SeveralVolumes: it holds several volumes, and ``options.volume`` chooses none.
        NotGrey: its voxels are colours or vectors.
        InvalidParameter: its values do not look like HU, and nobody says what they are.
        UndecodableImage: it is damaged, or of an unknown variant.
    """
    source = Source.of(content)
    read = _reader(source)
    if read is None:
        raise UndecodableImage("expected NIfTI-1, NRRD, MHA or NPY content, received none of these")
    try:
        return read(source, options)
    except LungsegError:
        raise
    except (ArithmeticError, LookupError, ValueError):  # of headers that no check foresaw
        raise UndecodableImage("expected a sound header, received a damaged one") from None


def _reader(source: Source) -> _Read | None:
    head = source.head(SNIFFED_BYTES)
    return next((read for matches, read in _READERS if matches(head)), None)
