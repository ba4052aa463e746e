"""Volumes on one regular grid, as NIfTI, NRRD, MHA and NPY hold them: header and bytes to values.

Values stay as they lie in the file, x fastest, and are read plane by plane, so that neither a
packed file nor one of wide numbers is ever held whole beside its volume.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.core.calibration import why_not_hu
from lungseg.core.errors import (
    InvalidParameter,
    SeveralVolumes,
    UndecodableImage,
    VolumeTooLarge,
)
from lungseg.core.types import AIR_HU, BoolArray, IntensityArray, Reach, Scan, Unit
from lungseg.core.volume import Progress, Volume, VolumeLimits, silent
from lungseg.formats.grid_places import placed
from lungseg.formats.image import MAX_INTENSITY, MAX_SIDE, WHITE
from lungseg.formats.source import Source
from lungseg.formats.voxels import Voxels

Size = tuple[int, int, int]
SAMPLED = 100
"""As many slices, rows and columns tell whether values are HU."""
_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridOptions:
    """What callers may say of a grid, and how large it may be."""

    limits: VolumeLimits = field(default_factory=VolumeLimits)
    volume: int | None = None
    """Which volume of a file that holds several, from 0 on."""
    unit: Unit | None = None
    """Of the values; None to look at them."""
    spacing_mm: tuple[float, float, float] | None = None
    """(slice, row, column) spacing of a file that carries none; ignored where it does."""
    progress: Progress = silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What a header says of its values."""

    media_type: str
    size: Size
    """(slices, rows, columns), slowest first, as they are stored."""
    dtype: np.dtype[Any]
    """Of stored numbers, with their byte order."""
    volumes: int = 1
    """How many lie one behind the other."""
    interleaved: int = 1
    """How many volumes have their values side by side, voxel for voxel."""
    slope: float = 1.0
    intercept: float = 0.0
    """Of the line from stored numbers to values."""
    affine: NDArray[np.float64] | None = None
    """(4, 4) from (slice, row, column, 1) to LPS mm; None or unsound where it is unknown."""
    spacing_mm: tuple[float, float, float] | None = None
    """(slice, row, column) spacing of a grid without an affine."""
    notes: tuple[str, ...] = ()
    """Codes of what its reader found."""


def read_values(source: Source, grid: Grid, options: GridOptions) -> Volume:
    """Reads the values that follow a header, within the limits that it is checked against.

    Raises:
        VolumeTooLarge: it announces more than is accepted.
        SeveralVolumes: it holds several, and none was chosen.
        InvalidParameter: there is no such volume, or nobody says that values are HU or grey
            levels, and they do not look like HU.
        UndecodableImage: it is truncated or damaged.
    """
    check_size(grid, options.limits)
    chosen = _chosen(grid.volumes * grid.interleaved, options.volume)
    outer, inner = divmod(chosen, grid.interleaved)
    depth, height, width = grid.size
    plane_bytes = height * width * grid.interleaved * grid.dtype.itemsize
    source.check_room(grid.volumes * depth * plane_bytes)
    source.skip(outer * depth * plane_bytes)

    def planes() -> Iterator[NDArray[np.generic]]:
        for _ in range(depth):
            stored = np.frombuffer(source.take(plane_bytes), grid.dtype)
            yield stored.reshape(height, width, grid.interleaved)[..., inner]
        source.check_end()

    return volume_of(planes(), grid, options)


def volume_of(planes: Iterable[NDArray[np.generic]], grid: Grid, options: GridOptions) -> Volume:
    """A volume of stored planes, each of shape (rows, columns), and of what a header says."""
    voxels = Voxels(grid.size)
    for index, stored in enumerate(planes):
        voxels.put(index, *_plane(stored, grid))
        options.progress("decode", index + 1, grid.size[0])
    values, unmeasured = voxels.values, voxels.unmeasured
    unit = options.unit or _seen_unit(values, unmeasured)
    if unmeasured is not None:
        darkest = values.min(where=~unmeasured, initial=values.max())
        values[unmeasured] = AIR_HU if unit == "HU" else darkest
    spacing, orientation, positions = placed(
        grid.size[0], grid.affine, grid.spacing_mm, options.spacing_mm
    )
    white = WHITE.get(grid.dtype.newbyteorder("=")) if grid.slope == 1 else None
    scan = Scan(
        values=values,
        unit=unit,
        media_type=grid.media_type,
        spacing_mm=spacing,
        orientation=orientation,
        positions_mm=positions,
        white=white if unit != "HU" and grid.intercept == 0 else None,
        reach=_reach(grid) if unit == "HU" else None,
        padding=unmeasured,
        notes=(*grid.notes, *(() if unmeasured is None else ("values_missing",))),
    )
    return Volume(scan=scan, affine=None if orientation is None else grid.affine)


def check_size(grid: Grid, limits: VolumeLimits) -> None:
    """Refuses a size beyond the limits, or without voxels, before anything is read.

    Raises:
        VolumeTooLarge, UndecodableImage: as their names say.
    """
    depth, height, width = grid.size
    if min(grid.size) < 1:
        raise UndecodableImage("expected at least one voxel, received none")
    if depth > limits.max_slices:
        raise VolumeTooLarge(f"expected at most {limits.max_slices} slices, received more")
    if height * width > limits.max_pixels or max(height, width) > MAX_SIDE:
        raise VolumeTooLarge(f"expected at most {limits.max_pixels} pixels a slice, received more")
    stored = grid.dtype.itemsize * grid.volumes * grid.interleaved
    if depth * height * width * max(stored, 2 if _stays_int16(grid) else 4) > limits.max_bytes:
        raise VolumeTooLarge(f"expected at most {limits.max_bytes} bytes of values, received more")


def _chosen(count: int, asked: int | None) -> int:
    if asked is None and count > 1:
        raise SeveralVolumes(
            f"expected one volume, received {count}: choose one by volume=0 to {count - 1}"
        )
    if asked is not None and not 0 <= asked < count:
        raise InvalidParameter(f"expected volume below {count}, the number of them in the file")
    return asked or 0


def _plane(stored: NDArray[np.generic], grid: Grid) -> tuple[NDArray[np.generic], BoolArray | None]:
    """One plane's values, int16 where all are whole, and where it has none: 0 stands there."""
    if _stays_int16(grid):
        return stored, None
    values = stored.astype(np.float64)
    values *= grid.slope
    values += grid.intercept
    missing = None
    if not (values.min() >= -MAX_INTENSITY and values.max() <= MAX_INTENSITY):  # NaN, too
        missing = ~(np.abs(values) <= MAX_INTENSITY)
        values[missing] = 0.0
    whole = stored.dtype.kind in "iub" and grid.slope == 1 and grid.intercept % 1 == 0
    fits = values.min() >= _INT16.min and values.max() <= _INT16.max
    is_int16 = fits and (whole or bool((np.rint(values) == values).all()))
    return values.astype(np.int16 if is_int16 else np.float32), missing


def _stays_int16(grid: Grid) -> bool:
    """Whether values are int16 before any is seen."""
    small = grid.dtype.kind in "iu" and grid.dtype.itemsize + (grid.dtype.kind == "u") <= 2
    return small and (grid.slope, grid.intercept) == (1, 0)


def _seen_unit(values: IntensityArray, unmeasured: BoolArray | None) -> Unit:
    """HU, where the values look like them; nothing else is taken for granted."""
    thinned = tuple(slice(None, None, max(1, length // SAMPLED)) for length in values.shape)
    sample = values[thinned]
    if unmeasured is not None:
        sample = sample[~unmeasured[thinned]]
    if reason := why_not_hu(sample):
        raise InvalidParameter(
            f"expected unit=hu or unit=grey for values of which {reason}, received neither"
        )
    return "HU"


def _reach(grid: Grid) -> Reach | None:
    """What stored integers of at most 16 bits can say; others can say whatever matters."""
    if grid.dtype.kind not in "iu" or grid.dtype.itemsize > 2 or grid.slope == 0:
        return None
    limits = np.iinfo(grid.dtype.newbyteorder("="))
    ends = sorted(grid.intercept + grid.slope * end for end in (limits.min, limits.max))
    return Reach(low=float(ends[0]), high=float(ends[1]), step=abs(grid.slope))
