"""STL and GLB as their readers take them: places, directions, names, ml; the same bytes twice."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from lungseg.core.mesh import Mesh, lung_meshes
from lungseg.core.types import LEFT, RIGHT
from lungseg.formats.mesh import glb, stl
from tests.core.ellipsoids import CENTRES, ML, RADII, cut


@pytest.fixture(scope="module")
def meshes() -> list[Mesh]:
    volume, truth = cut()
    return lung_meshes(volume, truth.labels)


def read_stl(content: bytes) -> tuple[bytes, np.ndarray, np.ndarray]:
    (count,) = struct.unpack_from("<I", content, 80)
    assert len(content) == 84 + 50 * count
    records = np.frombuffer(content, np.uint8, offset=84).reshape(count, 50)
    numbers = records[:, :48].copy().view("<f4").reshape(count, 4, 3)
    return content[:80], numbers[:, 0], numbers[:, 1:]


def test_stl_says_its_space_and_is_in_it(meshes: list[Mesh]) -> None:
    """LPS, and RAS turned by half: in either the triangles turn outwards, by the right hand."""
    for space, sign in (("lps", 1), ("ras", -1)):
        header, normals, corners = read_stl(stl(meshes, space))
        assert f"SPACE={space.upper()}".encode() in header
        assert not header.startswith(b"solid")
        middle = (corners.reshape(-1, 3).max(axis=0) + corners.reshape(-1, 3).min(axis=0)) / 2
        assert middle[2] == pytest.approx(-4, abs=6)
        right = corners[: len(meshes[0].faces)].reshape(-1, 3).mean(axis=0)
        expected = np.multiply(CENTRES[RIGHT], (sign, sign, 1))
        assert right == pytest.approx(expected, abs=3)
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert (np.einsum("ij,ij->i", across, normals) >= 0).all()
        signed = np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6000
        assert signed == pytest.approx(ML[RIGHT] + ML[LEFT], rel=3e-3)


def read_glb(content: bytes) -> tuple[dict, bytes]:
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack_from("<I4s", content, 12)
    assert (kind, size % 4) == (b"JSON", 0)
    said = json.loads(content[20 : 20 + size])
    rest = content[20 + size :]
    if not rest:
        return said, b""
    size, kind = struct.unpack_from("<I4s", rest)
    assert (kind, size % 4, len(rest)) == (b"BIN\0", 0, size + 8)
    return said, rest[8:]


def array(said: dict, binary: bytes, accessor: int) -> np.ndarray:
    found = said["accessors"][accessor]
    view = said["bufferViews"][found["bufferView"]]
    assert view["byteOffset"] % 4 == 0
    kind = {5126: "<f4", 5125: "<u4"}[found["componentType"]]
    width = {"VEC3": 3, "SCALAR": 1}[found["type"]]
    data = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    values = np.frombuffer(data, kind).reshape(-1, width)
    assert len(values) == found["count"]
    if "min" in found:
        assert np.array_equal(values.min(axis=0), np.float32(found["min"]))
        assert np.array_equal(values.max(axis=0), np.float32(found["max"]))
    return values


def test_glb_stands_upright_in_metres_with_named_lungs(meshes: list[Mesh]) -> None:
    said, binary = read_glb(glb(meshes, {RIGHT: 1234.5, LEFT: None}))
    assert said["buffers"] == [{"byteLength": len(binary)}]
    assert [node["name"] for node in said["nodes"]] == ["right lung", "left lung"]
    assert [node["extras"]["volume_ml"] for node in said["nodes"]] == [1234.5, None]
    for node, side in zip(said["nodes"], (RIGHT, LEFT), strict=True):
        (primitive,) = said["meshes"][node["mesh"]]["primitives"]
        vertices = array(said, binary, primitive["attributes"]["POSITION"]).astype(np.float64)
        normals = array(said, binary, primitive["attributes"]["NORMAL"])
        faces = array(said, binary, primitive["indices"]).reshape(-1, 3)
        left, back, head = CENTRES[side]
        middle = (vertices.max(axis=0) + vertices.min(axis=0)) / 2
        assert middle * 1000 == pytest.approx([left, head, -back], abs=2)
        radii = (vertices.max(axis=0) - vertices.min(axis=0)) * 500
        assert radii == pytest.approx([RADII[side][0], RADII[side][2], RADII[side][1]], abs=2)
        first, second, third = (vertices[faces[:, corner]] for corner in range(3))
        litres = np.einsum("ij,ij->", first, np.cross(second, third)) / 6 * 1000
        assert litres * 1000 == pytest.approx(ML[side], rel=3e-3)
        assert np.linalg.norm(normals, axis=1) == pytest.approx(1, abs=1e-3)
        outwards = ((vertices - middle) * normals).sum(axis=1)
        assert (outwards > 0).mean() > 0.999
        material = said["materials"][primitive["material"]]
        assert material["pbrMetallicRoughness"]["metallicFactor"] == 0


def test_nothing_is_a_valid_file_too() -> None:
    assert read_stl(stl([]))[2].size == 0
    said, binary = read_glb(glb([], {}))
    assert said["asset"]["version"] == "2.0"
    assert [] not in said.values()
    assert binary == b""


def test_the_same_meshes_give_the_same_bytes(meshes: list[Mesh]) -> None:
    assert stl(meshes) == stl(meshes)
    assert glb(meshes, {}) == glb(meshes, {})
