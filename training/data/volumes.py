"""NIfTI volumes as axial slices, turned the way radiologists look at them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lungseg.core.types import Scan
from training.data.intensity import find_peaks
from training.errors import DataError

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

VOLUME_SUFFIXES = (".nii", ".nii.gz")
HU_AIR, HU_TISSUE = (-1100.0, -780.0), (-100.0, 150.0)
"""Where the peaks of air (or aerated lung) and soft tissue lie in calibrated CT."""
VOLUMES_KEPT = 2
"""Decoded volumes held in memory: the one that is being read, and its mask."""

_lock = Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Volume:
    """One decoded volume: intensities (Z, Y, X), their spacing and unit."""

    values: NDArray[np.float32]
    spacing_mm: tuple[float, float]
    calibrated: bool


def is_volume(path: Path) -> bool:
    """Whether the file's name is that of a NIfTI volume."""
    return path.name.lower().endswith(VOLUME_SUFFIXES)


def count_slices(path: Path) -> int:
    """Axial slices of a volume, from its header alone.

    Raises:
        DataError: no readable NIfTI, or not three-dimensional.
    """
    image = _open(path)
    import nibabel

    axes = nibabel.orientations.io_orientation(image.affine)[:, 0]
    return int(image.shape[int(np.flatnonzero(axes == 2)[0])])


def read_slice(path: Path, index: int) -> Scan:
    """One axial slice, counted from the feet: the patient's right is at the picture's left.

    Args:
        path: a NIfTI file.
        index: 0 at the slice nearest to the feet.

    Returns:
        A scan with Z = 1, in HU where air and tissue of the volume lie where HU have them.

    Raises:
        DataError: no readable NIfTI.
    """
    try:
        modified_ns = path.stat().st_mtime_ns
    except OSError as error:
        raise DataError(f"{path.name}: {error.strerror}; bring the file back") from error
    with _lock:  # the threads that ask for slices of one volume share one decoding
        volume = _load(path, modified_ns)
    if index >= len(volume.values):
        raise DataError(
            f"{path.name}: expected slice {index}, found {len(volume.values)} slices; volume and "
            "mask must have the same grid"
        )
    return Scan(
        values=np.ascontiguousarray(volume.values[index])[None],
        unit="HU" if volume.calibrated else "grey level",
        media_type="application/x-nifti",
        spacing_mm=volume.spacing_mm,
    )


@lru_cache(maxsize=VOLUMES_KEPT)
def _load(path: Path, _modified_ns: int) -> _Volume:
    import nibabel

    upright = nibabel.as_closest_canonical(_open(path))
    try:
        stored = upright.get_fdata(dtype=np.float32, caching="unchanged")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path.name}: the NIfTI is damaged ({error}); repair the file or take it out"
        ) from error
    if not np.isfinite(stored).all():
        raise DataError(
            f"{path.name}: expected finite intensities, found NaN or infinity; repair the file or "
            "take it out"
        )
    # RAS+ to (Z, Y, X) with X to the patient's left and Y to the back.
    values = stored.reshape(stored.shape[:3])[::-1, ::-1, :].transpose(2, 1, 0)
    zooms = upright.header.get_zooms()
    air, tissue = find_peaks(values[len(values) // 2])
    calibrated = HU_AIR[0] <= air <= HU_AIR[1] and HU_TISSUE[0] <= tissue <= HU_TISSUE[1]
    return _Volume(
        values=values, spacing_mm=(float(zooms[1]), float(zooms[0])), calibrated=calibrated
    )


def _open(path: Path) -> SpatialImage:
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
        from nibabel.spatialimages import HeaderDataError
    except ImportError as error:  # an extra of the distribution
        raise DataError(
            f"{path.name}: NIfTI needs nibabel; install lungseg with the extra `training`"
        ) from error
    try:
        image: Any = nibabel.load(path)
    except (OSError, EOFError, ImageFileError, HeaderDataError, zlib.error) as error:
        raise DataError(
            f"{path.name}: expected a NIfTI volume ({error}); repair the file or take it out"
        ) from error
    if len(image.shape) < 3 or any(size != 1 for size in image.shape[3:]):
        shape = " x ".join(str(size) for size in image.shape)
        raise DataError(f"{path.name}: expected one volume of 3 dimensions, found {shape}")
    return image
