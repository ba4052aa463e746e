"""Meshes of ellipsoids: closed, turned outwards, of the reported ml, and where the lungs are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungseg.core.errors import InvalidParameter
from lungseg.core.mesh import Mesh, lung_meshes
from lungseg.core.surface_nets import surface
from lungseg.core.types import LEFT, RIGHT, UNSIDED
from lungseg.core.volume_report import measure_volume
from tests.core.ellipsoids import CENTRES, CORONAL, RADII, SAGITTAL, cut

EVEN = np.arange(-120.0, 121.0, 4.0)
OBLIQUE = ((np.cos(0.3), 0.0, np.sin(0.3)), (0.0, 1.0, 0.0))
STACKS = {
    "axial": {},
    "thin": {"distances": np.arange(-120, 121, 2.0), "spacing": (4.0, 1.5)},
    "from the head down": {"axes": ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0))},
    "coronal": {"axes": CORONAL},
    "sagittal": {"axes": SAGITTAL, "distances": np.arange(-150.0, 151.0, 4.0)},
    "oblique": {"axes": OBLIQUE, "distances": np.arange(-160.0, 161.0, 4.0)},
    "tilted by 15 degrees": {"shear": np.tan(np.radians(15))},
    "one missing": {"distances": np.delete(EVEN, 30)},
    "4 mm, then 6 mm": {"distances": np.r_[np.arange(-120, 1, 4.0), np.arange(6, 121, 6.0)]},
}


def assert_closed(faces: np.ndarray) -> None:
    """Each edge of a triangle is that of exactly one other, which runs along it the other way."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    there, back = edges @ [1 << 32, 1], edges @ [1, 1 << 32]
    assert np.unique(there).size == there.size
    assert np.array_equal(np.sort(there), np.sort(back))


@pytest.mark.parametrize("stack", STACKS)
def test_a_mesh_is_the_lung_in_any_stack(stack: str) -> None:
    """Closed, to 0.3% of the reported ml, and nowhere farther than a cell from the ellipsoid."""
    volume, truth = cut(**STACKS[stack])
    report = measure_volume(volume, truth).statistics.lungs
    right, left = lung_meshes(volume, truth.labels)
    for mesh, side, reported in ((right, RIGHT, report.right), (left, LEFT, report.left)):
        assert mesh.label == side
        assert_closed(mesh.faces)
        assert mesh.volume_ml == pytest.approx(reported.volume_ml, rel=3e-3)
        from_centre = (mesh.vertices - CENTRES[side]) / RADII[side]
        off_mm = (np.linalg.norm(from_centre, axis=1) - 1) * min(RADII[side])
        assert np.abs(off_mm).max() < 4.5
        assert np.abs(off_mm).mean() < 1.2
        middle = (mesh.vertices.max(axis=0) + mesh.vertices.min(axis=0)) / 2
        assert np.abs(middle - CENTRES[side]).max() < 2


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
@settings(max_examples=60, deadline=None)
def test_surfaces_of_noise_are_closed_too(seed: int, share: float) -> None:
    """However voxels meet at corners and edges; and the surface passes between in and out."""
    noise = np.random.default_rng(seed)
    field = noise.random((7, 6, 5)).astype(np.float32)
    field = np.pad(field, 1)
    vertices, faces = surface(field, share)
    if not (field > share).any():
        assert faces.size == 0
        return
    assert_closed(faces)
    assert np.unique(faces).size == len(vertices)
    lowest, highest = np.argwhere(field > share).min(axis=0), np.argwhere(field > share).max(axis=0)
    assert (vertices >= lowest - 1).all()
    assert (vertices <= highest + 1).all()


def test_a_voxel_turns_outwards() -> None:
    field = np.zeros((3, 3, 3), np.float32)
    field[1, 1, 1] = 1
    vertices, faces = surface(field, 0.5)
    assert (len(vertices), len(faces)) == (8, 12)
    assert Mesh(label=1, vertices=vertices, faces=faces).volume_ml > 0


def test_parts_slivers_and_lung_without_sides_have_meshes() -> None:
    """Cut by the ends of the stack, one voxel thick, or of unknown side: all closed."""
    volume, truth = cut(np.arange(-60.0, 61.0, 4.0))
    labels = np.where(truth.labels == LEFT, UNSIDED, 0).astype(np.uint8)
    labels[10, 20, 10:40] = RIGHT
    sliver, rest = lung_meshes(volume, labels)
    assert (sliver.label, rest.label) == (RIGHT, UNSIDED)
    for mesh in (sliver, rest):
        assert_closed(mesh.faces)
        assert mesh.volume_ml > 0
    assert lung_meshes(volume, np.zeros_like(labels)) == []


@pytest.mark.parametrize("lacking", ["positions_mm", "spacing_mm", "orientation"])
def test_without_geometry_there_is_no_mesh(lacking: str) -> None:
    volume, truth = cut()
    bare = replace(volume, scan=replace(volume.scan, **{lacking: None}))
    with pytest.raises(InvalidParameter, match="there is no mesh"):
        lung_meshes(bare, truth.labels)
    one, labels = cut([0.0])
    with pytest.raises(InvalidParameter, match="there is no mesh"):
        lung_meshes(one, labels.labels)
