"""One picture of a whole volume: axial planes from the head to the feet, lungs outlined."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lungseg.core.axial import AxialPlanes
from lungseg.core.body import Box, body_box
from lungseg.core.resample import resample
from lungseg.core.types import IntensityArray, LabelArray, Segmentation
from lungseg.core.volume import Volume
from lungseg.formats.write import painted, picture_png, window_of

COLUMNS, ROWS = 6, 5
"""Planes beside and below each other, at most: thirty show apex, hila and bases."""
TILE_PIXELS = 240
"""Longer side of a plane in the picture; the whole is 1440 wide, as a screen."""
BEYOND = 0.04
"""Of the height of the lungs, what is shown above and below them: where they end."""
TEXT_RGB = (255, 255, 0)
COMPRESSION = 3


def montage_png(volume: Volume, segmentation: Segmentation) -> bytes:
    """Draws planes evenly apart through the lungs, or through all of a volume without any.

    All have one scale and one window. Each says its place along the body in mm (its number from
    the feet where that is unknown), and the first on which side the patient's right is.
    """
    planes = AxialPlanes.of(volume.scan)
    labels = planes.view.apply(segmentation.labels)
    values = cast("IntensityArray", planes.view.apply(volume.scan.values))
    shown = _shown(labels)
    box = body_box(values[shown], volume.scan.unit)
    size = _tile_size(planes, box)
    window = window_of(values[shown], volume.scan.unit)
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    picture = np.zeros((rows * size[0], columns * size[1], 3), np.uint8)
    texts: list[tuple[int, int, str]] = []
    for place, index in enumerate(shown.tolist()):
        top, left = place // columns * size[0], place % columns * size[1]
        tile = _tile(values[index], labels[index], box, size, window)
        picture[top : top + size[0], left : left + size[1]] = tile
        texts.append((left + 3, top + 2, _name(planes, index)))
    if planes.view.laterality is not None:
        texts.append((3, size[0] // 2, "R"))
    return picture_png(_written(picture, texts), COMPRESSION)


def _shown(labels: LabelArray) -> NDArray[np.intp]:
    """Planes to be shown, the one closest to the head first."""
    with_lung = np.flatnonzero(labels.any(axis=(1, 2)))
    first, last = (with_lung[0], with_lung[-1]) if with_lung.size else (0, len(labels) - 1)
    if with_lung.size:
        margin = 1 + round(BEYOND * (last - first))
        first, last = max(0, first - margin), min(len(labels) - 1, last + margin)
    places = np.linspace(last, first, min(COLUMNS * ROWS, last - first + 1))
    return np.rint(places).astype(np.intp)


def _tile_size(planes: AxialPlanes, box: Box) -> tuple[int, int]:
    """(height, width) of the box in the picture, of its shape in mm."""
    spacing = planes.spacing_mm or (1.0, 1.0)
    height, width = (side * step for side, step in zip(box.size, spacing, strict=True))
    scale = TILE_PIXELS / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _tile(
    values: IntensityArray,
    labels: LabelArray,
    box: Box,
    size: tuple[int, int],
    window: tuple[float, float],
) -> NDArray[np.uint8]:
    (row, column), (height, width) = box.corner, box.size
    part = np.s_[row : row + height, column : column + width]
    rows, columns = (
        ((np.arange(side) + 0.5) * whole / side).astype(np.intp)
        for side, whole in zip(size, box.size, strict=True)
    )
    return painted(resample(values[part], size), labels[part][rows][:, columns], window)


def _name(planes: AxialPlanes, index: int) -> str:
    positions = planes.positions_mm
    return f"#{index + 1}" if positions is None else f"{positions[index]:.1f} mm"


def _written(picture: NDArray[np.uint8], texts: list[tuple[int, int, str]]) -> NDArray[np.uint8]:
    """The picture with texts at (x, y), in Pillow's own small letters: the same everywhere."""
    image = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default_imagefont()
    for x, y, text in texts:
        draw.text((x, y), text, fill=TEXT_RGB, font=font)
    return np.asarray(image)
