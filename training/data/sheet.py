"""Contact sheets: many slices on one picture, with outlines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Colour = tuple[int, int, int]
TRUTH: Colour = (64, 220, 90)
PREDICTION: Colour = (255, 150, 30)
REJECTED: Colour = (255, 70, 70)
IGNORED: Colour = (150, 150, 255)

TILE = 256
"""Side of a tile's picture in pixels."""
GAP, TITLE_HEIGHT, LINES = 6, 13, 3
GROUND: Colour = (24, 24, 24)
INK: Colour = (230, 230, 230)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One slice on a sheet.

    Attributes:
        grey: what to show, uint8, shape (Y, X).
        title: up to three lines above it.
        outlines: masks, bool of the same shape, each with its colour.
        title_colour: of the title.
    """

    grey: NDArray[np.uint8]
    title: str
    outlines: Sequence[tuple[NDArray[np.bool_], Colour]] = ()
    title_colour: Colour = INK


def contact_sheet(tiles: Sequence[Tile], columns: int = 6) -> Image.Image:
    """Lays slices out in rows, each scaled to one size, its aspect ratio kept.

    Args:
        tiles: at least one.
        columns: tiles a row.

    Returns:
        An RGB picture.
    """
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    height = TILE + LINES * TITLE_HEIGHT + GAP
    sheet = Image.new("RGB", (columns * (TILE + GAP) + GAP, rows * height + GAP), GROUND)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=10)
    for number, tile in enumerate(tiles):
        left = GAP + number % columns * (TILE + GAP)
        top = GAP + number // columns * height
        for line, text in enumerate(_lines(tile.title, font)):
            place = (left, top + line * TITLE_HEIGHT)
            pen.text(place, text, fill=tile.title_colour, font=font)
        sheet.paste(_picture(tile), (left, top + LINES * TITLE_HEIGHT))
    return sheet


def to_picture(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Intensities of any unit as grey, stretched between their 0.5 and 99.5 percentiles."""
    low, high = (float(edge) for edge in np.percentile(values, (0.5, 99.5)))
    unit = (values - low) / max(high - low, 1e-6)
    return np.rint(np.clip(unit, 0, 1) * 255).astype(np.uint8)


def _picture(tile: Tile) -> Image.Image:
    """The tile with its outlines, drawn after scaling so that each is one pixel wide."""
    height, width = tile.grey.shape
    scale = TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = Image.fromarray(tile.grey).resize(size, Image.Resampling.BILINEAR)
    pixels = np.array(grey.convert("RGB"))
    for mask, colour in tile.outlines:
        small = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
        inside = np.asarray(small) > 127
        pixels[inside & ~np.asarray(ndimage.binary_erosion(inside), bool)] = colour
    return Image.fromarray(pixels)


def _lines(title: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Breaks a title at spaces into lines of a tile's width; what is too long is cut."""
    lines = [""]
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= TILE or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines[:LINES]
