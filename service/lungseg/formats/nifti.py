"""NIfTI-1 volumes (``.nii``, ``.nii.gz``), by their header's own words."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.core.errors import NotGrey, UndecodableImage
from lungseg.core.volume import Volume
from lungseg.formats.grid import Grid, GridOptions, read_values
from lungseg.formats.grid_places import is_sound
from lungseg.formats.nifti_header import (
    CODES,
    COLOUR_CODES,
    HEADER_BYTES,
    SAME_MM,
    VALUES_AT,
    parse_header,
    transforms,
    unit_mm,
)
from lungseg.formats.source import Source

MEDIA_TYPE = "application/x-nifti"
MAX_EXTENSION_BYTES = 1 << 24
"""What may stand between the header and the values."""


def is_nifti(head: bytes) -> bool:
    """Whether a file begins as one of NIfTI-1 does; unpacked, where it is gzip."""
    return parse_header(head) is not None


def read_nifti(source: Source, options: GridOptions) -> Volume:
    """Reads a file that ``is_nifti``.

    Raises:
        NotGrey: its voxels are colours.
        UndecodableImage: they are no numbers, or the file is damaged.
        VolumeTooLarge, SeveralVolumes, InvalidParameter: see ``read_values``.
    """
    head = source.head(HEADER_BYTES)
    fields = parse_header(head)
    grid = _grid(fields)
    offset = float(fields["vox_offset"])
    if not offset <= MAX_EXTENSION_BYTES:  # NaN, too
        raise UndecodableImage("expected the values near the header, received them far behind it")
    source.skip(max(VALUES_AT, int(offset)))
    return replace(read_values(source, grid, options), nifti_header=head)


def _grid(fields: Any) -> Grid:
    code = int(fields["datatype"])
    if code in COLOUR_CODES:
        raise NotGrey("expected grey voxels, received colours")
    if code not in CODES:
        raise UndecodableImage("expected voxels of integers or real numbers, received others")
    count = int(fields["dim"][0])
    if not 2 <= count <= 7:
        raise UndecodableImage(f"expected 3 dimensions, received {count}")
    dims = [int(length) for length in fields["dim"][1 : count + 1]] + [1] * (7 - count)
    width, height, depth, *more = dims
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    scaled = np.isfinite(slope) and slope != 0
    found = [matrix for matrix in transforms(fields) if is_sound(matrix)]
    size = (depth, height, width)
    differ = len(found) > 1 and _distance_mm(found[0], found[1], size) > SAME_MM
    return Grid(
        media_type=MEDIA_TYPE,
        size=size,
        dtype=np.dtype(CODES[code]).newbyteorder(fields.dtype["dim"].base.byteorder),
        volumes=math.prod(max(1, length) for length in more),
        slope=slope if scaled else 1.0,
        intercept=intercept if scaled and np.isfinite(intercept) else 0.0,
        affine=found[0] if found else None,
        spacing_mm=_spacing(fields),
        notes=("transforms_differ",) if differ else (),
    )


def _spacing(fields: Any) -> tuple[float, float, float] | None:
    """(slice, row, column) spacing of a header without transforms.

    Ones of no unit are what programs write that know of none.
    """
    column, row, between = (abs(float(length)) for length in fields["pixdim"][1:4])
    unit = unit_mm(fields)
    if unit is None and column == row == between == 1:
        return None
    return (between * (unit or 1), row * (unit or 1), column * (unit or 1))


def _distance_mm(
    one: NDArray[np.float64], other: NDArray[np.float64], size: tuple[int, int, int]
) -> float:
    """How far two transforms put a corner of the grid apart at most."""
    corners = np.indices((2, 2, 2)).reshape(3, 8) * (np.array(size)[:, None] - 1)
    apart = (one - other)[:3] @ np.vstack([corners, np.ones(8)])
    return float(np.linalg.norm(apart, axis=0).max())
