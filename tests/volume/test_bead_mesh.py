"""The bead through the mesh: whatever a series is like, its surface lies around the bead."""

from __future__ import annotations

import numpy as np
import pytest

from lungseg.core.errors import InvalidParameter
from lungseg.core.mesh import lung_meshes
from lungseg.core.types import LEFT
from lungseg.core.volume_report import measure_volume
from lungseg.formats.volume import read_volume
from tests.core.ellipsoids import segmented
from tests.volume.series import BEAD_HU, REFUSED, SERIES, SPACING_MM, STEP_MM, sent

ONE_SLICE = "one slice"


@pytest.mark.parametrize("name", [n for n in SERIES if n not in (*REFUSED, ONE_SLICE)])
def test_the_mesh_of_the_bead_is_where_the_bead_was(name: str) -> None:
    """Its middle within half a voxel, and its ml those of its one voxel to 1%."""
    true, volume = sent(name), read_volume(sent(name).files)
    labels = np.where(volume.scan.values == BEAD_HU, LEFT, 0).astype(np.uint8)
    (mesh,) = lung_meshes(volume, labels)
    middle = (mesh.vertices.max(axis=0) + mesh.vertices.min(axis=0)) / 2
    assert np.abs(middle - true.bead_mm).max() < min(*SPACING_MM, STEP_MM) / 2
    report = measure_volume(volume, segmented(labels)).statistics
    assert mesh.volume_ml == pytest.approx(report.volume_ml, rel=1e-2)


def test_one_slice_has_no_mesh() -> None:
    volume = read_volume(sent(ONE_SLICE).files)
    with pytest.raises(InvalidParameter):
        lung_meshes(volume, np.ones(volume.scan.values.shape, np.uint8))
