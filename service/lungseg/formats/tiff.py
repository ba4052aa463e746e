"""TIFF: which of a file's pages is the picture, and how its pixels are written.

Every kind of number is read as what it is, or refused by what it is: a library that reads a
signed sample as an unsigned one gives a wrong mask without a word. Sizes are checked here,
before ``tiff_pixels`` unpacks anything.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lungseg.core.errors import ImageTooLarge, LungsegError, MultiFrame, UndecodableImage
from lungseg.core.types import LOSSY, Scan
from lungseg.formats.image import check_pixels, checked
from lungseg.formats.quiet import silence_decoders
from lungseg.formats.sniff import TIFF
from lungseg.formats.tiff_directory import Directory, Tag, read_directories
from lungseg.formats.tiff_pixels import JPEG, MIN_IS_WHITE, grey_levels, is_pillows, turned
from lungseg.formats.tiff_segments import Page

PLAUSIBLE_SPACING_MM = (0.2, 3.0)
"""Pixel spacings of CT; below are print resolutions, above are no CT slices."""
PRINT_RESOLUTIONS_DPI = (72, 96, 100)
"""Defaults of picture software within the plausible range: they say nothing of the patient."""
MM_PER_RESOLUTION_UNIT = {2: 25.4, 3: 10.0}
"""TIFF 6.0 ResolutionUnit: 2 = inch, 3 = centimetre."""
MAX_TILE_EXCESS = 4
"""How many times the picture's pixels its tiles may hold: they are unpacked as a whole."""
SMALL_TILE_PIXELS = 1 << 20
"""Tiles up to this are accepted with the smallest of pictures."""
_REDUCED, _MASK, _OLD_REDUCED = 1, 4, 2
_KINDS: dict[int, Literal["u", "i", "f"]] = {1: "u", 2: "i", 3: "f", 4: "u"}
"""SampleFormat; 4 is undefined data, which the specification lets readers take as 1."""
_BITS = {"u": (*range(1, 17), 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}
_KIND_NAMES = {"u": "unsigned", "i": "signed", "f": "floating-point"}
_ON_ITS_SIDE = (5, 6, 7, 8)
"""Orientations that exchange rows and columns."""
_IMAGEJ_STACK = re.compile(rb"^ImageJ=.*\nimages=(?!1\n)\d", re.DOTALL)
_TIFFFILE_STACK = re.compile(rb'^\{"shape": .*"truncated": true')


def read_tiff(content: bytes, max_pixels: int, *, as_stored: bool = False) -> Scan:
    """Decodes the one picture of a TIFF or BigTIFF into grey levels.

    Reduced pages and transparency masks beside it are passed over. White is made the highest
    level, whatever the file says of it; integers without a sign of up to 16 bits know it.

    Args:
        content: the file.
        max_pixels: rows × columns accepted; more is refused before decoding.
        as_stored: the values are measured ones: they are not inverted where 0 is shown as white.

    Raises:
        ImageTooLarge, MultiFrame, NotGrey, UndecodableImage: as their names say.
    """
    silence_decoders()
    try:
        directory, index = _picture(read_directories(content))
        page = _page(directory, index, max_pixels)
        if as_stored and page.photometric == MIN_IS_WHITE:
            page = replace(page, photometric=MIN_IS_WHITE + 1)
        values, white = grey_levels(content, page)
        spacing_mm = _spacing(directory)
        orientation = directory.number(Tag.ORIENTATION, 1)
        if not is_pillows(page):  # which turns pictures itself
            values = turned(values, orientation)
        if spacing_mm is not None and orientation in _ON_ITS_SIDE:
            spacing_mm = (spacing_mm[1], spacing_mm[0])
        return Scan(
            values=checked(values)[None],
            unit="grey level",
            media_type=TIFF,
            spacing_mm=spacing_mm,
            white=white,
            notes=(LOSSY,) if page.compression == JPEG else (),
        )
    except LungsegError:
        raise
    except Exception:  # noqa: BLE001 - broken bytes raise anything, and errors quote them
        raise UndecodableImage("the content is TIFF, but it is damaged") from None


def _picture(directories: list[Directory]) -> tuple[Directory, int]:
    """The only page that is neither a smaller copy nor a mask of another one."""
    every = list(zip(directories, range(len(directories)), strict=True))
    pages = [
        (directory, index)
        for directory, index in every
        if not directory.number(Tag.NEW_SUBFILE_TYPE, 0) & (_REDUCED | _MASK)
        and directory.number(Tag.SUBFILE_TYPE, 1) != _OLD_REDUCED
    ]
    pages = pages or every
    directory = pages[0][0]
    description = directory.text(Tag.DESCRIPTION)
    stacked = _IMAGEJ_STACK.match(description) or _TIFFFILE_STACK.match(description)
    if len(pages) > 1 or stacked or directory.number(Tag.IMAGE_DEPTH, 1) != 1:
        raise MultiFrame("expected one picture in the file, received several")
    return pages[0]


def _page(directory: Directory, index: int, max_pixels: int) -> Page:
    """How the pixels are written; refuses by name what is not read."""
    number = directory.number
    height, width = number(Tag.HEIGHT), number(Tag.WIDTH)
    check_pixels(height, width, max_pixels)
    bits, kinds = directory.numbers(Tag.BITS, 1), directory.numbers(Tag.SAMPLE_FORMAT, 1)
    if len({*bits}) != 1 or len({*kinds}) != 1:
        raise UndecodableImage("expected a TIFF whose samples are all of one kind")
    kind = _KINDS.get(kinds[0])
    if kind is None:
        raise UndecodableImage("expected a TIFF of plain numbers, received complex ones")
    if bits[0] not in _BITS[kind]:
        raise UndecodableImage(
            f"expected a TIFF of known samples, received {_KIND_NAMES[kind]} ones of {bits[0]} bits"
        )
    tiled = Tag.TILE_WIDTH in directory
    if tiled:
        segment = (number(Tag.TILE_LENGTH), number(Tag.TILE_WIDTH))
        _check_tiles(segment, (height, width))
    else:
        segment = (min(height, max(1, number(Tag.ROWS_PER_STRIP, height))), width)
    return Page(
        index=index,
        order=directory.order,
        size=(height, width),
        samples=number(Tag.SAMPLES, 1),
        bits=bits[0],
        kind=kind,
        photometric=number(Tag.PHOTOMETRIC, 1),
        compression=number(Tag.COMPRESSION, 1),
        predictor=number(Tag.PREDICTOR, 1),
        bits_reversed=number(Tag.FILL_ORDER, 1) == 2,
        separate=number(Tag.PLANAR, 1) == 2,
        extra=tuple(directory.numbers(Tag.EXTRA_SAMPLES)),
        tiled=tiled,
        segment=segment,
        offsets=_integers(directory, Tag.TILE_OFFSETS if tiled else Tag.STRIP_OFFSETS),
        counts=_integers(directory, Tag.TILE_COUNTS if tiled else Tag.STRIP_COUNTS),
    )


def _check_tiles(tile: tuple[int, int], size: tuple[int, int]) -> None:
    if min(tile) < 1:
        raise UndecodableImage("expected tiles with pixels, received some without")
    covered = np.prod([-(-side // step) * step for side, step in zip(size, tile, strict=True)])
    if covered > max(SMALL_TILE_PIXELS, MAX_TILE_EXCESS * size[0] * size[1]):
        raise ImageTooLarge("expected tiles of about the picture's size, received larger ones")


def _integers(directory: Directory, tag: Tag) -> NDArray[np.int64]:
    return np.array(directory.numbers(tag), np.uint64).astype(np.int64)


def _spacing(directory: Directory) -> tuple[float, float] | None:
    """(row, column) spacing in mm from the TIFF's resolution, None where it isn't plausible."""
    unit_mm = MM_PER_RESOLUTION_UNIT.get(directory.number(Tag.RESOLUTION_UNIT, 2))
    per_unit = [directory.ratio(tag) for tag in (Tag.Y_RESOLUTION, Tag.X_RESOLUTION)]
    if unit_mm is None or not all(np.isfinite(value) and value > 0 for value in per_unit):
        return None
    spacing = (unit_mm / per_unit[0], unit_mm / per_unit[1])
    low, high = PLAUSIBLE_SPACING_MM
    plausible = all(low <= value <= high for value in spacing)
    of_print = any(abs(25.4 / mm - dpi) < 0.5 for mm in spacing for dpi in PRINT_RESOLUTIONS_DPI)
    return spacing if plausible and not of_print else None
