"""The header of NIfTI-1: 348 bytes that say what values are and where they lie.

By its definition (nifti1.h of the NIfTI Data Format Working Group, 2005). Its coordinates grow to
the patient's right, to the front and to the head; ours and DICOM's to the left and the back.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 348
VALUES_AT = 352
"""Where values begin in a file without extensions, four bytes behind its header."""
MAGIC = b"n+1\0"
MAGIC_AT = slice(344, 348)
CODES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
"""Kinds of numbers by their code."""
COLOUR_CODES = (128, 2304)
"""RGB and RGBA."""
SCANNER = 1
"""Code of a transform to the scanner's coordinates."""
MILLIMETRE = 2
UNITS_MM = {1: 1000.0, MILLIMETRE: 1.0, 3: 0.001}
"""Metre, millimetre and micrometre."""
UNIT_BITS = 0x07
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
HALF_TURN = 1e-7
"""Square of a quaternion's first part that is 0 but for float32's rounding, as in nifti1_io.c."""
SAME_MM = 1.0
"""Two transforms agree where no corner of the grid lies further from itself."""
_FIELDS = (
    ("sizeof_hdr", "i4"), ("data_type", "S10"), ("db_name", "S18"), ("extents", "i4"),
    ("session_error", "i2"), ("regular", "S1"), ("dim_info", "u1"), ("dim", "i2", (8,)),
    ("intent_p", "f4", (3,)), ("intent_code", "i2"), ("datatype", "i2"), ("bitpix", "i2"),
    ("slice_start", "i2"), ("pixdim", "f4", (8,)), ("vox_offset", "f4"), ("scl_slope", "f4"),
    ("scl_inter", "f4"), ("slice_end", "i2"), ("slice_code", "u1"), ("xyzt_units", "u1"),
    ("cal_max", "f4"), ("cal_min", "f4"), ("slice_duration", "f4"), ("toffset", "f4"),
    ("glmax", "i4"), ("glmin", "i4"), ("descrip", "S80"), ("aux_file", "S24"),
    ("qform_code", "i2"), ("sform_code", "i2"), ("quatern", "f4", (3,)),
    ("qoffset", "f4", (3,)), ("srow", "f4", (3, 4)), ("intent_name", "S16"), ("magic", "S4"),
)  # fmt: skip
_LITTLE = np.dtype([(field[0], f"<{field[1]}", *field[2:]) for field in _FIELDS])
_KEPT = (
    "dim_info", "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern", "qoffset", "srow"
)  # fmt: skip
"""What says where voxels lie; nothing else of a source's header goes on, texts least of all."""


def parse_header(head: bytes) -> Any:
    """The fields of a header by their names, None where there is none of NIfTI-1."""
    if len(head) < HEADER_BYTES or head[MAGIC_AT] != MAGIC:
        return None
    kind = _LITTLE if head[:4] == HEADER_BYTES.to_bytes(4, "little") else _LITTLE.newbyteorder()
    fields = np.frombuffer(head[:HEADER_BYTES], kind)[0]
    return fields if fields["sizeof_hdr"] == HEADER_BYTES else None


def unit_mm(fields: Any) -> float | None:
    """Millimetres of the header's unit of length, None where it has none."""
    return UNITS_MM.get(int(fields["xyzt_units"]) & UNIT_BITS)


def transforms(fields: Any) -> list[NDArray[np.float64]]:
    """Matrices (4, 4) from (slice, row, column, 1) to LPS mm that the header gives, best first."""
    found: list[NDArray[np.float64]] = []
    if fields["sform_code"] > 0:
        found.append(np.vstack([fields["srow"].astype(np.float64), [0, 0, 0, 1]]))
    if fields["qform_code"] > 0:
        found.append(_of_quaternion(fields))
    unit = unit_mm(fields) or 1.0
    scale = np.diag([unit, unit, unit, 1.0])
    with np.errstate(all="ignore"):  # of what no check has seen yet
        return [RAS_TO_LPS @ scale @ matrix[:, [2, 1, 0, 3]] for matrix in found]


def _of_quaternion(fields: Any) -> NDArray[np.float64]:
    """Rotation, spacing and offset of the method called qform."""
    vector = fields["quatern"].astype(np.float64)
    rest = 1.0 - float(vector @ vector)
    if rest < HALF_TURN:  # or rounding of the other three would turn it
        rest, vector = 0.0, vector / max(1e-30, float(np.linalg.norm(vector)))
    a, (b, c, d) = rest**0.5, map(float, vector)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    spacing = fields["pixdim"][1:4].astype(np.float64)
    spacing[2] *= -1 if fields["pixdim"][0] < 0 else 1
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * spacing
    matrix[:3, 3] = fields["qoffset"]
    return matrix


def header_of_grid(
    affine_lps: NDArray[np.float64] | None, spacing_mm: tuple[float, float, float] | None
) -> Any:
    """Fields of a new header that say where voxels lie, or only how far they are apart.

    Args:
        affine_lps: (4, 4) from (slice, row, column, 1) to LPS mm, None where it is unknown.
        spacing_mm: (slice, row, column) spacing, where that alone is known.
    """
    fields: Any = np.zeros((), _LITTLE)
    fields["pixdim"] = [1, *(spacing_mm or (1, 1, 1))[::-1], 0, 0, 0, 0]
    fields["xyzt_units"] = 0 if spacing_mm is None and affine_lps is None else MILLIMETRE
    if affine_lps is not None:
        ras = RAS_TO_LPS @ affine_lps[:, [2, 1, 0, 3]]
        fields["pixdim"][1:4] = np.linalg.norm(ras[:3, :3], axis=0)
        fields["sform_code"] = SCANNER
        fields["srow"] = ras[:3]
        _set_quaternion(fields, ras)
    return fields


def header_like(source: bytes) -> Any:
    """Fields of a new header that say of voxels what a source's header does, and no more."""
    given = parse_header(source)
    fields: Any = np.zeros((), given.dtype)
    for name in _KEPT:
        fields[name] = given[name]
    fields["pixdim"][4:] = 0
    return fields


def write_header(fields: Any, size: tuple[int, int, int], code: int) -> bytes:
    """The beginning of a file, up to its values: of this size (slices, rows, columns)."""
    fields["sizeof_hdr"], fields["regular"], fields["magic"] = HEADER_BYTES, b"r", MAGIC
    fields["dim"] = [3, *size[::-1], 1, 1, 1, 1]
    fields["datatype"], fields["bitpix"] = code, 8 * np.dtype(CODES[code]).itemsize
    fields["vox_offset"], fields["scl_slope"] = VALUES_AT, 1
    return fields.tobytes() + bytes(VALUES_AT - HEADER_BYTES)


def _set_quaternion(fields: Any, ras: NDArray[np.float64]) -> None:
    """Says the same by the method called qform, where there is no shear that it cannot say."""
    spacing = np.linalg.norm(ras[:3, :3], axis=0)
    rotation = ras[:3, :3] / spacing
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > 1e-5:
        return
    mirrored = np.linalg.det(rotation) < 0
    rotation[:, 2] *= -1 if mirrored else 1
    # The largest eigenvector of Bar-Itzhack's symmetric matrix is the quaternion (x, y, z, w).
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    symmetric = np.array(
        [
            [xx - yy - zz, yx + xy, zx + xz, zy - yz],
            [yx + xy, yy - xx - zz, zy + yz, xz - zx],
            [zx + xz, zy + yz, zz - xx - yy, yx - xy],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    quaternion = np.linalg.eigh(symmetric)[1][:, -1]
    fields["quatern"] = quaternion[:3] * (-1 if quaternion[3] < 0 else 1)
    fields["qoffset"], fields["qform_code"] = ras[:3, 3], SCANNER
    fields["pixdim"][0] = -1 if mirrored else 1
