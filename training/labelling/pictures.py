"""Contact sheets: each slice with its outlines, the numbers of its components and a scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from training.labelling.decisions import Decision
from training.labelling.masks import IGNORE, LUNG, SliceMask
from training.labelling.propose import Proposal
from training.labelling.shapes import Mask, deepest

Colour = tuple[int, int, int]

TILE = 512
"""Width of a slice on a sheet in pixels."""
COLUMNS, ROWS = 3, 2
"""Slices on a sheet: more would be scaled down on most screens."""
MARGIN = 12
"""Pixels of the slice that are shown around the body."""
WINDOW_HU = (-1250.0, 300.0)
"""Black and white: wide enough to tell lung from gas and consolidation from fat."""
TICK = 50
"""Pixels of the slice between the marks at the edges: corners of polygons are read off them."""
TITLE_HEIGHT, FONT_SIZE, TICK_FONT_SIZE = 20, 15, 11
LUNG_COLOUR: Colour = (70, 230, 90)
OTHER_COLOUR: Colour = (255, 80, 70)
AIRWAY_COLOUR: Colour = (60, 200, 255)
IGNORE_COLOUR: Colour = (255, 90, 255)
GROUND: Colour = (24, 24, 24)
INK: Colour = (235, 235, 235)
SHADOW: Colour = (0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is shown of one slice.

    Attributes:
        proposal: of the stack that the slice is in.
        index: of the slice in it.
        decision: what was said of it.
        result: its masks.
    """

    proposal: Proposal
    index: int
    decision: Decision
    result: SliceMask


def sheets(views: Sequence[View]) -> Iterator[Image.Image]:
    """Lays slices out on as many sheets as they need, RGB pictures."""
    for first in range(0, len(views), COLUMNS * ROWS):
        tiles = [draw(view) for view in views[first : first + COLUMNS * ROWS]]
        rows = [tiles[start : start + COLUMNS] for start in range(0, len(tiles), COLUMNS)]
        heights = [max(tile.height for tile in row) for row in rows]
        sheet = Image.new("RGB", (COLUMNS * TILE, sum(heights)), GROUND)
        for number, row in enumerate(rows):
            for column, tile in enumerate(row):
                sheet.paste(tile, (column * TILE, sum(heights[:number])))
        yield sheet


def draw(view: View, width: int = TILE, box: tuple[slice, slice] | None = None) -> Image.Image:
    """One slice with title, outlines, numbers and scale.

    Args:
        view: the slice.
        width: of the picture in pixels.
        box: rows and columns to show, by default those of the body.

    Returns:
        An RGB picture of that width.
    """
    rows, columns = box or _body_box(view.proposal.body[view.index])
    scale = width / (columns.stop - columns.start)
    size = (width, round((rows.stop - rows.start) * scale))
    hu = view.proposal.stack.hu[view.index][rows, columns].astype(np.float32)
    low, high = WINDOW_HU
    grey = np.clip((hu - low) * (255 / (high - low)), 0, 255).astype(np.uint8)
    picture = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    pixels = np.array(picture)
    for mask, colour in _outlines(view):
        pixels[_edge(mask[rows, columns], size)] = colour
    tile = Image.new("RGB", (width, size[1] + TITLE_HEIGHT), GROUND)
    tile.paste(Image.fromarray(pixels), (0, TITLE_HEIGHT))
    pen = ImageDraw.Draw(tile)
    pen.text((4, 1), _title(view), fill=INK, font=ImageFont.load_default(FONT_SIZE))
    _write_scale(pen, rows, columns, scale)
    _write_numbers(pen, view, (rows.start, columns.start), scale)
    return tile


def _body_box(body: Mask) -> tuple[slice, slice]:
    if not body.any():
        return slice(0, body.shape[0]), slice(0, body.shape[1])
    boxes: list[slice] = []
    for axis, length in ((1, body.shape[0]), (0, body.shape[1])):
        places = np.flatnonzero(body.any(axis=axis))
        first, last = int(places[0]), int(places[-1])
        boxes.append(slice(max(0, first - MARGIN), min(length, last + 1 + MARGIN)))
    return boxes[0], boxes[1]


def _outlines(view: View) -> list[tuple[Mask, Colour]]:
    mask, airway = view.result.mask, view.result.airway
    others = (view.proposal.numbers[view.index] > 0) & (mask == 0) & ~airway
    return [
        (others, OTHER_COLOUR),
        (mask == LUNG, LUNG_COLOUR),
        (airway, AIRWAY_COLOUR),
        (mask == IGNORE, IGNORE_COLOUR),
    ]


def _edge(mask: Mask, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The rim of a mask, one pixel wide after scaling to (width, height)."""
    scaled = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    inside = np.asarray(scaled) > 127
    return inside & ~np.asarray(ndimage.binary_erosion(inside), bool)


def _title(view: View) -> str:
    stack = view.proposal.stack
    item = stack.slices[view.index]
    pixel_cm2 = stack.spacing_mm[1] * stack.spacing_mm[2] / 100
    area = float((view.result.mask == LUNG).sum()) * pixel_cm2
    name = item.name if len(item.name) <= 16 else f"{item.name[:7]}…{item.name[-8:]}"
    return f"{name}  {item.position_mm:.0f} mm  {area:.1f} cm2  {view.decision.verdict}"


def _write_scale(pen: ImageDraw.ImageDraw, rows: slice, columns: slice, scale: float) -> None:
    font = ImageFont.load_default(TICK_FONT_SIZE)
    for x in range(-(-columns.start // TICK) * TICK, columns.stop, TICK):
        place = (x - columns.start) * scale
        pen.line((place, TITLE_HEIGHT, place, TITLE_HEIGHT + 6), fill=INK)
        pen.text((place + 2, TITLE_HEIGHT), str(x), fill=INK, font=font)
    for y in range(-(-rows.start // TICK) * TICK, rows.stop, TICK):
        place = (y - rows.start) * scale + TITLE_HEIGHT
        pen.line((0, place, 6, place), fill=INK)
        pen.text((8, place - 6), str(y), fill=INK, font=font)


def _write_numbers(
    pen: ImageDraw.ImageDraw, view: View, corner: tuple[int, int], scale: float
) -> None:
    """Writes each component's number where it is widest."""
    numbers = view.proposal.numbers[view.index]
    font = ImageFont.load_default(FONT_SIZE)
    for component in view.proposal.on_slice(view.index):
        row, column = deepest(numbers == component.number)
        place = (
            (float(column) + 0.5 - corner[1]) * scale,
            (float(row) + 0.5 - corner[0]) * scale + TITLE_HEIGHT,
        )
        lung = view.result.mask[row, column] == LUNG
        pen.text(
            place,
            str(component.number),
            fill=LUNG_COLOUR if lung else OTHER_COLOUR,
            font=font,
            anchor="mm",
            stroke_width=2,
            stroke_fill=SHADOW,
        )
