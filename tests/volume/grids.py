"""Volumes of one grid, and the files that other programs make of them."""

from __future__ import annotations

import gzip
import io
import tempfile
from pathlib import Path

import nibabel
import numpy as np

SIZE = 6, 22, 26
SPACING_MM = 2.5, 0.8, 0.7
ORIGIN_MM = -100.5, 30.25, -700.0
_COSINE, _SINE = float(np.cos(0.2)), float(np.sin(0.2))
DIRECTIONS = {
    "axial": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "to the front": ((0, 0, 1), (0, -1, 0), (1, 0, 0)),
    "to front and right": ((0, 0, 1), (0, -1, 0), (-1, 0, 0)),
    "to the feet": ((0, 0, -1), (0, 1, 0), (1, 0, 0)),
    "coronal": ((0, 1, 0), (0, 0, -1), (1, 0, 0)),
    "sagittal": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "oblique": ((0, 0, 1), (-_SINE, _COSINE, 0), (_COSINE, _SINE, 0)),
}
"""Patient directions of (slices, rows, columns)."""
RAS_TO_LPS = np.diag([-1.0, -1, 1, 1])


def chest(size: tuple[int, int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """A body with a lung in air, int16 HU with noise, shape (slices, rows, columns)."""
    _, height, width = size
    values = np.full(size, -1000, np.int16)
    values[:, height // 8 : -height // 8, width // 8 : -width // 8] = 40
    values[:, height // 4 : -height // 4, width // 4 : width // 2] = -850
    noise = np.random.default_rng(seed).integers(-20, 21, size, np.int16)
    return values + noise


def affine_of(
    name: str = "axial",
    spacing_mm: tuple[float, float, float] = SPACING_MM,
    origin_mm: tuple[float, float, float] = ORIGIN_MM,
) -> np.ndarray:
    """(4, 4) from (slice, row, column, 1) to LPS mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(DIRECTIONS[name], float).T * spacing_mm
    matrix[:3, 3] = origin_mm
    return matrix


def nifti(values: np.ndarray, affine: np.ndarray | None, **fields: object) -> bytes:
    """NIfTI-1 by nibabel, with fields of its header set behind its back."""
    ras = None if affine is None else RAS_TO_LPS @ affine[:, [2, 1, 0, 3]]
    image = nibabel.Nifti1Image(values.transpose(2, 1, 0), ras)
    content = bytearray(image.to_bytes())
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header.structarr[name] = value
    content[:348] = header.binaryblock
    return bytes(content)


def affine_of_nifti(content: bytes) -> np.ndarray:
    """What nibabel reads, as from (slice, row, column, 1) to LPS mm."""
    return RAS_TO_LPS @ nibabel.Nifti1Image.from_bytes(content).affine[:, [2, 1, 0, 3]]


def nrrd(values: np.ndarray, header: str = "", encoding: str = "raw") -> bytes:
    """NRRD by hand, with further lines of its header."""
    kinds = {"int16": "short", "uint8": "uchar", "float32": "float"}
    lines = f"NRRD0004\n# by hand\ntype: {kinds[values.dtype.name]}\ndimension: {values.ndim}\n"
    lines += f"sizes: {' '.join(map(str, values.shape[::-1]))}\nendian: little\n"
    content = values.tobytes() if encoding == "raw" else gzip.compress(values.tobytes())
    return f"{lines}encoding: {encoding}\n{header}\n".encode() + content


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def by_itk(values: np.ndarray, affine: np.ndarray, suffix: str, *, packed: bool = False) -> bytes:
    """A file as SimpleITK writes it."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(values)
    xyz = affine[:3, [2, 1, 0]]
    spacing = np.linalg.norm(xyz, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((xyz / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"volume{suffix}")
        SimpleITK.WriteImage(image, str(path), packed)
        return path.read_bytes()


def read_by_itk(content: bytes, suffix: str) -> tuple[np.ndarray, np.ndarray]:
    """What SimpleITK reads: values (slices, rows, columns) and the affine to LPS mm."""
    import SimpleITK

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"volume{suffix}")
        path.write_bytes(content)
        image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    xyz = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, :3], affine[:3, 3] = xyz[:, ::-1], image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image), affine
