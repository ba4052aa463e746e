"""Lungs as closed surfaces of triangles in patient coordinates, for viewers and printers.

Voxels are averaged to about 2 mm and smoothed before the surface is drawn, never after: what is
smoothed later shrinks. What is left of shrinking is given back along the normals, so that a mesh
holds the volume that is reported, which is that of the voxels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lungseg.core.errors import InvalidParameter
from lungseg.core.full_grid import FullGrid, full_grid
from lungseg.core.geometry import pixel_area_mm2, weights_mm
from lungseg.core.regions import bounding_box
from lungseg.core.surface_nets import Faces, Vertices, surface
from lungseg.core.types import LEFT, RIGHT, UNSIDED, BoolArray, FloatArray, LabelArray
from lungseg.core.volume import Volume

CELL_MM = 2.0
"""Voxels are averaged to about this: finer surfaces are more than viewers turn with ease."""
SMOOTHING_CELLS = 0.6
"""Standard deviation of the smoothing: it takes the steps off, and leaves the shape."""
LEVEL = 0.5
"""Of lung in a cell, where the surface runs."""
REACH, BORDER = 2, 3
"""Cells that the smoothing reaches, and empty ones around, which are more."""
MOVES, MAX_MOVE_MM = 6, 1.0
"""How often vertices are moved to give back volume at most, and by how much each time."""
CLOSE = 5e-4
"""Share of the volume that may still be lacking then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """One lung, or lung without a side, as triangles."""

    label: int
    vertices: Vertices
    """float32, shape (n, 3), patient mm (LPS)."""
    faces: Faces
    """int32, shape (m, 3); they turn to the left as seen from outside."""

    @property
    def volume_ml(self) -> float:
        """What the surface encloses."""
        first, second, third = (
            self.vertices[self.faces[:, corner]].astype(np.float64) for corner in range(3)
        )
        return float(np.einsum("ij,ij->", first, np.cross(second, third))) / 6000

    @property
    def normals(self) -> Vertices:
        """Unit vectors outwards at the vertices, float32, shape (n, 3): means by area."""
        return _normals(self)[0].astype(np.float32)


def lung_meshes(volume: Volume, labels: LabelArray) -> list[Mesh]:
    """The lungs of a volume, right before left; a lung without voxels has no mesh.

    Args:
        volume: the source.
        labels: its lungs, shape (Z, Y, X).

    Raises:
        InvalidParameter: it is unknown how far apart slices or pixels lie.
    """
    grid, affine, weights, area_mm2 = _places(volume)
    rows, columns = bounding_box(np.asarray(labels.any(axis=0)))
    inside = labels[:, rows, columns]
    affine[:3, 3] += affine[:3, 1:3] @ [rows.start, columns.start]
    mapped = grid.labels(inside)
    meshes: list[Mesh] = []
    for label in (RIGHT, LEFT, UNSIDED):
        voxels = np.count_nonzero(inside == label, axis=(1, 2))
        if voxels.any():
            volume_ml = float(voxels @ weights) * area_mm2 / 1000
            meshes.append(_given_back(_mesh(mapped == label, affine, label), volume_ml))
    return meshes


def check_places(volume: Volume) -> None:
    """Makes sure that there can be meshes of a volume.

    Raises:
        InvalidParameter: see ``lung_meshes``.
    """
    _places(volume)


def _places(
    volume: Volume,
) -> tuple[FullGrid, NDArray[np.float64], NDArray[np.float64], float]:
    """The even grid, its affine, what each slice stands for in mm, and a pixel's area in mm²."""
    grid = full_grid(volume)
    weights, area_mm2 = weights_mm(volume.scan), pixel_area_mm2(volume.scan)
    if grid.affine is None or weights is None or area_mm2 is None:
        raise InvalidParameter(
            "expected a volume whose slices and pixels have known places, received one without: "
            "there is no mesh of it"
        )
    return grid, grid.affine.copy(), weights, area_mm2


def _mesh(mask: BoolArray, affine: NDArray[np.float64], label: int) -> Mesh:
    """The surface of a lung, as smoothing left it."""
    first, inside = _cropped(mask)
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    block = np.maximum(1, np.floor(CELL_MM / steps + 0.5)).astype(int)
    field = np.pad(_means(inside, block), BORDER)
    field = _smoothed(field)
    vertices, faces = surface(field, min(LEVEL, float(field.max()) / 2))
    index = (vertices - BORDER) * block + (block - 1) / 2 + first
    placed = (index @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)
    mesh = Mesh(label=label, vertices=placed, faces=faces)
    if mesh.volume_ml < 0:  # the axes of the file are left-handed in the patient
        mesh = replace(mesh, faces=np.ascontiguousarray(faces[:, ::-1]))
    return mesh


def _cropped(mask: BoolArray) -> tuple[NDArray[np.intp], BoolArray]:
    """The box of a mask: its first voxel, and what is in it."""
    planes = np.flatnonzero(mask.any(axis=(1, 2)))
    part = slice(int(planes[0]), int(planes[-1]) + 1)
    rows, columns = bounding_box(np.asarray(mask[part].any(axis=0)))
    return np.array([part.start, rows.start, columns.start]), mask[part, rows, columns]


def _means(mask: BoolArray, block: NDArray[np.intp]) -> FloatArray:
    """Shares of True in blocks of so many voxels along each axis; beyond the mask there is none."""
    size = -(-np.array(mask.shape) // block)
    summed = np.zeros(size, np.uint32)
    for offset in np.ndindex(*block.tolist()):
        part = mask[tuple(slice(at, None, side) for at, side in zip(offset, block, strict=True))]
        summed[tuple(slice(side) for side in part.shape)] += part
    return summed.astype(np.float32) / np.float32(block.prod())


def _smoothed(field: FloatArray) -> FloatArray:
    """A Gaussian along each axis, cut off where its weights no longer count; around is nothing."""
    offsets = np.arange(-REACH, REACH + 1)
    weights = np.exp(-0.5 * np.square(offsets / SMOOTHING_CELLS)).astype(np.float32)
    weights /= weights.sum()
    for axis in range(3):
        summed = field * weights[REACH]
        along, into = np.moveaxis(field, axis, 0), np.moveaxis(summed, axis, 0)
        for step in range(1, REACH + 1):
            into[step:] += weights[REACH + step] * along[:-step]
            into[:-step] += weights[REACH - step] * along[step:]
        field = summed
    return field


def _given_back(mesh: Mesh, volume_ml: float) -> Mesh:
    """The mesh with all vertices moved along their normals, so that it holds so much."""
    for _ in range(MOVES):
        lacking = volume_ml - mesh.volume_ml
        if abs(lacking) <= CLOSE * volume_ml:
            break
        normals, area_mm2 = _normals(mesh)
        move = np.clip(1000 * lacking / max(area_mm2, 1e-9), -MAX_MOVE_MM, MAX_MOVE_MM)
        moved = mesh.vertices + float(move) * normals
        mesh = replace(mesh, vertices=moved.astype(np.float32))
    return mesh


def _normals(mesh: Mesh) -> tuple[NDArray[np.float64], float]:
    """Unit normals at the vertices, shape (n, 3), and the area of the surface in mm²."""
    first, second, third = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    across = np.cross(second - first, third - first).astype(np.float64)  # twice the area, (m, 3)
    summed = np.zeros(mesh.vertices.shape)
    for corner in range(3):
        for axis in range(3):
            at = mesh.faces[:, corner]
            summed[:, axis] += np.bincount(at, across[:, axis], len(mesh.vertices))
    lengths = np.linalg.norm(summed, axis=1, keepdims=True)
    area_mm2 = float(np.linalg.norm(across, axis=1).sum()) / 2
    return summed / np.maximum(lengths, 1e-12), area_mm2
