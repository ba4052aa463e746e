"""Meshes of lungs to bytes: binary STL for printers and Slicer, GLB for the web and headsets."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lungseg.core.mesh import Mesh
from lungseg.core.types import LEFT, RIGHT, UNSIDED
from lungseg.formats.write import COLOURS_RGB

Space = Literal["lps", "ras"]
"""The directions in which x and y grow: to the patient's left and back, or right and front."""
NAMES = {RIGHT: "right lung", LEFT: "left lung", UNSIDED: "lung"}
TO_RAS = np.array([-1.0, -1.0, 1.0], np.float32)
TO_GLTF = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32) / np.float32(1000)
"""glTF is in metres, y up, and looks at +z: from LPS mm to (left, head, front)."""
TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
"""One record of binary STL."""
STL_HEADER_BYTES = 80
_FLOAT, _UINT = 5126, 5125
_VERTEX_BUFFER, _INDEX_BUFFER = 34962, 34963
_JSON, _BIN = 0x4E4F534A, 0x004E4942


def stl(meshes: Sequence[Mesh], space: Space = "lps") -> bytes:
    """Binary STL of all meshes together, in mm.

    The format has no word for directions: the header says them as 3D Slicer reads it.
    """
    header = f"lungseg, not for clinical use; UNIT=mm; SPACE={space.upper()}".encode()
    parts = [header.ljust(STL_HEADER_BYTES), struct.pack("<I", sum(len(m.faces) for m in meshes))]
    for mesh in meshes:
        vertices = mesh.vertices if space == "lps" else mesh.vertices * TO_RAS
        triangles = np.zeros(len(mesh.faces), TRIANGLE)
        corners = vertices[mesh.faces]  # (faces, 3, 3)
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        lengths = np.linalg.norm(across, axis=1, keepdims=True)
        triangles["normal"] = across / np.maximum(lengths, np.float32(1e-20))
        triangles["corners"] = corners
        parts.append(triangles.tobytes())
    return b"".join(parts)


def glb(meshes: Sequence[Mesh], volumes_ml: Mapping[int, float | None]) -> bytes:
    """Binary glTF 2.0 with a node for each lung, which says its name and its ml.

    Args:
        meshes: the lungs.
        volumes_ml: by label, as they are reported.
    """
    content: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "lungseg", "extras": {"use": "research only"}},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(meshes)))}],
        "nodes": [
            {
                "name": NAMES[mesh.label],
                "mesh": index,
                "extras": {"volume_ml": volumes_ml.get(mesh.label)},
            }
            for index, mesh in enumerate(meshes)
        ],
        "materials": [_material(mesh.label) for mesh in meshes],
        "meshes": [],
        "accessors": [],
        "bufferViews": [],
    }
    binary = b""
    for index, mesh in enumerate(meshes):
        content["meshes"].append(_primitive(mesh, index))
        binary += _stored(mesh, content, len(binary))
    if not meshes:  # empty arrays are no valid glTF
        content = {name: content[name] for name in ("asset", "scene")} | {"scenes": [{}]}
    else:
        content["buffers"] = [{"byteLength": len(binary)}]
    said = json.dumps(content, separators=(",", ":")).encode()
    chunks = _chunk(_JSON, said, b" ") + (_chunk(_BIN, binary, b"\0") if meshes else b"")
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _material(label: int) -> dict[str, Any]:
    """The lung's colour of overlays, in linear light, without a gloss."""
    linear = [round((part / 255) ** 2.2, 4) for part in COLOURS_RGB[label]]
    return {
        "name": NAMES[label],
        "pbrMetallicRoughness": {
            "baseColorFactor": [*linear, 1.0],
            "metallicFactor": 0.0,
            "roughnessFactor": 1.0,
        },
    }


def _primitive(mesh: Mesh, index: int) -> dict[str, Any]:
    first = 3 * index
    attributes = {"POSITION": first, "NORMAL": first + 1}
    primitive = {"attributes": attributes, "indices": first + 2, "material": index}
    return {"name": NAMES[mesh.label], "primitives": [primitive]}


def _stored(mesh: Mesh, content: dict[str, Any], offset: int) -> bytes:
    """The arrays of a mesh, from an offset of the buffer on, entered into the tables."""
    vertices = (mesh.vertices @ TO_GLTF.T).astype("<f4")
    normals = (mesh.normals @ TO_GLTF.T * np.float32(1000)).astype("<f4")
    indices = mesh.faces.astype("<u4").ravel()
    arrays: list[tuple[NDArray[Any], int, int, str]] = [
        (vertices, _VERTEX_BUFFER, _FLOAT, "VEC3"),
        (normals, _VERTEX_BUFFER, _FLOAT, "VEC3"),
        (indices, _INDEX_BUFFER, _UINT, "SCALAR"),
    ]
    stored = b""
    for array, target, component, kind in arrays:
        data = array.tobytes()  # of four-byte numbers: all offsets are multiples of 4
        view = {"buffer": 0, "byteOffset": offset + len(stored), "byteLength": len(data)}
        accessor = {
            "bufferView": len(content["bufferViews"]),
            "componentType": component,
            "count": len(array),
            "type": kind,
        }
        if array is vertices:
            accessor |= {"min": vertices.min(axis=0).tolist(), "max": vertices.max(axis=0).tolist()}
        content["bufferViews"].append({**view, "target": target})
        content["accessors"].append(accessor)
        stored += data
    return stored


def _chunk(kind: int, data: bytes, filler: bytes) -> bytes:
    data += filler * (-len(data) % 4)
    return struct.pack("<II", len(data), kind) + data
