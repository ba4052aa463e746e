"""The picture of a volume: planes in order, one scale, lungs in their colours, no lung no end."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lungseg.core.types import LEFT, RIGHT
from lungseg.formats.montage import COLUMNS, ROWS, TILE_PIXELS, montage_png
from lungseg.formats.write import COLOURS_RGB
from tests.core.ellipsoids import CORONAL, cut, segmented

TEXT = (255, 255, 0)


def pixels(volume: object, found: object) -> np.ndarray:
    with Image.open(io.BytesIO(montage_png(volume, found))) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        return np.asarray(picture)


def tiles(picture: np.ndarray, columns: int, rows: int) -> list[np.ndarray]:
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    assert (height * rows, width * columns) == picture.shape[:2]
    assert max(height, width) == TILE_PIXELS
    return [
        picture[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(rows)
        for column in range(columns)
    ]


def coloured(tile: np.ndarray, label: int) -> np.ndarray:
    return (tile == COLOURS_RGB[label]).all(axis=-1)


@pytest.mark.parametrize("stack", [{}, {"axes": CORONAL}, {"axes": ((-1.0, 0, 0), (0, 1.0, 0))}])
def test_planes_run_from_the_head_to_the_feet_with_the_right_lung_left(stack: dict) -> None:
    """Thirty of them, whichever way the stack runs; outlines are widest in the middle."""
    shown = tiles(pixels(*cut(**stack)), COLUMNS, ROWS)
    widths = []
    for tile in shown:
        right, left = coloured(tile, RIGHT), coloured(tile, LEFT)
        if right.any() and left.any():
            assert np.nonzero(right)[1].max() < np.nonzero(left)[1].min()
        widths.append(int(np.ptp(np.nonzero(right)[1])) if right.any() else 0)
    assert widths[0] == widths[-1] == 0
    assert 10 <= int(np.argmax(widths)) < 20
    assert not coloured(shown[0], LEFT).any()


def test_all_tiles_have_one_scale_of_millimetres() -> None:
    """A body 344 mm wide and 264 mm deep fills its tile in this shape."""
    for spacing in ((3.0, 2.5), (2.0, 4.0)):
        tile = tiles(pixels(*cut(spacing=spacing)), COLUMNS, ROWS)[15]
        body = tile.max(axis=-1) > 100
        rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
        assert np.ptp(columns) / np.ptp(rows) == pytest.approx(344 / 264, rel=0.05)
        assert np.ptp(columns) > 0.8 * TILE_PIXELS


def test_each_plane_says_its_place_and_the_first_one_the_side() -> None:
    volume, truth = cut()
    first, second = tiles(pixels(volume, truth), 6, 5)[:2]
    assert (first[80:100] == TEXT).all(axis=-1).any()
    assert not (second[80:100] == TEXT).all(axis=-1).any()
    written = [(tile == TEXT).all(axis=-1).sum() for tile in tiles(pixels(volume, truth), 6, 5)]
    assert min(written) > 10
    unplaced = replace(volume, scan=replace(volume.scan, positions_mm=None, orientation=None))
    assert not np.array_equal(pixels(unplaced, truth), pixels(volume, truth))
    assert (pixels(unplaced, truth) == TEXT).all(axis=-1).any()


def test_without_lung_all_of_the_volume_is_shown_and_few_planes_make_few_tiles() -> None:
    volume, truth = cut(np.arange(0.0, 33.0, 4.0))
    empty = segmented(np.zeros_like(truth.labels))
    picture = pixels(volume, empty)
    assert len(tiles(picture, 6, 2)) == 12
    assert not coloured(picture, RIGHT).any()
    assert len(tiles(pixels(*cut([0.0])), 1, 1)) == 1


def test_grey_levels_are_shown_between_their_own_percentiles() -> None:
    """An offset and a scale of unknown values change nothing."""
    volume, truth = cut(noise=20)
    grey = replace(volume.scan, unit="grey level")
    scaled = replace(grey, values=(volume.scan.values * np.float32(0.01) + np.float32(7)))
    one, other = (pixels(replace(volume, scan=scan), truth).astype(int) for scan in (grey, scaled))
    assert np.abs(one - other).max() <= 2


def test_the_same_volume_gives_the_same_bytes() -> None:
    volume, truth = cut()
    assert montage_png(volume, truth) == montage_png(volume, truth)
