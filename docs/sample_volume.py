"""Makes ``service/lungseg/samples/chest.nii.gz`` from a series that may be shown.

The chest of one patient of LIDC-IDRI, cut between ``FROM_MM`` and ``TO_MM``, with the mean of two
by two pixels of two slices as a voxel, values in steps of ``STEP_HU``, and little air around the
body.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np

from lungseg.core.geometry import even_affine
from lungseg.formats.nifti_header import header_of_grid, write_header
from lungseg.volumes import VolumePipeline

FROM_MM, TO_MM = -302.5, -12.5
"""Patient positions along the body: from below the lungs to above them, chest slices only."""
JOINED = 2
"""Slices, rows and columns that become one."""
STEP_HU = 8
"""Far below the noise of a voxel, and too small for the flag of limited values."""
BODY_HU = -400
"""Below that is air, or lung."""
BODY_SHARE = 0.05
"""Of a row or column that is body, where the table is less."""
MARGIN = 5
"""Voxels of air that stay around the body."""
LOW_HU, HIGH_HU = -1024, 1200
"""Bone is cut: nothing here looks at more."""
INT16 = 4
"""NIfTI-1's code."""


def sample(folder: Path) -> bytes:
    """The volume as ``.nii.gz``, the same bytes every time."""
    files = [path.read_bytes() for path in sorted(folder.glob("*.dcm"))]
    scan = VolumePipeline().read(files).scan
    affine = even_affine(scan)
    if affine is None:
        raise ValueError("expected slices at even steps, received others")
    heights = affine[2, 3] + affine[2, 0] * np.arange(len(scan.values))
    inside = np.flatnonzero((heights >= FROM_MM) & (heights <= TO_MM))
    inside = inside[: len(inside) // JOINED * JOINED]
    values = scan.values[inside[0] : inside[-1] + 1].astype(np.float32)
    depth, height, width = (size // JOINED for size in values.shape)
    blocks = values.reshape(depth, JOINED, height, JOINED, width, JOINED)
    means = blocks.mean(axis=(1, 3, 5)).clip(LOW_HU, HIGH_HU)
    voxels = (np.round(means / STEP_HU) * STEP_HU).astype("<i2")
    grid = affine.copy()
    grid[:3, 3] += affine[:3, 0] * inside[0] + affine[:3, :3].sum(axis=1) * (JOINED - 1) / 2
    grid[:3, :3] *= JOINED
    for axis in (1, 2):
        others = tuple({0, 1, 2} - {axis})
        body = np.flatnonzero((voxels > BODY_HU).mean(axis=others) > BODY_SHARE)
        first, last = max(0, body[0] - MARGIN), body[-1] + MARGIN + 1
        voxels = voxels.take(range(first, min(last, voxels.shape[axis])), axis)
        grid[:3, 3] += grid[:3, axis] * first
    spacing = np.linalg.norm(grid[:3, :3], axis=0)
    head = write_header(header_of_grid(grid, tuple(spacing)), voxels.shape, INT16)
    return gzip.compress(head + voxels.tobytes(), mtime=0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the DICOM files of the series")
    parser.add_argument("out", type=Path, help="the .nii.gz to write")
    options = parser.parse_args()
    options.out.write_bytes(sample(options.folder))
