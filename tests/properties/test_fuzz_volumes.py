"""Hostile volumes: a volume within the limits or an error of the contract, and never for long."""

from __future__ import annotations

import gzip
import time
from collections.abc import Sequence

import numpy as np
import pytest
from pydicom import uid

from lungseg.core.errors import LungsegError
from lungseg.core.volume import VolumeLimits
from lungseg.formats.decoders import DecoderLimits, Decoders
from lungseg.formats.volume import read_volume
from lungseg.web.errors import PROBLEMS
from tests.formats.dicoms import compressed
from tests.properties.mutations import mutate
from tests.properties.test_fuzz import inputs
from tests.volume import grids
from tests.volume.series import enhanced, instances, stack
from tests.volume.test_uploads import in_folders, zipped

SHORT = 400
PATIENCE_S = 10.0
"""Decoders may be given up twice, each after its second, and their successors have to start."""
LIMITS = VolumeLimits(max_slices=100, max_bytes=8 << 20, max_pixels=1 << 18, max_files=50)
DECODERS = Decoders(DecoderLimits(processes=2, timeout_s=1.0))
FILES = instances(stack(), range(5))
MHA = (
    b"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 2\n"
    b"DimSize = 26 22 6\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
)
CHEST = grids.chest()
NIFTI = grids.nifti(CHEST, grids.affine_of("oblique"))
SEEDS: dict[str, Sequence[bytes]] = {
    "series": FILES,
    "compressed series": [compressed(one, uid.JPEGLSLossless) for one in FILES],
    "enhanced": [enhanced(stack())],
    "compressed enhanced": [compressed(enhanced(stack()), uid.RLELossless)],
    "zip": [zipped(in_folders(FILES))],
    "nifti": [NIFTI],
    "packed nifti": [gzip.compress(NIFTI)],
    "nrrd": [grids.nrrd(CHEST, "space: left-posterior-superior\nspacings: 1 1 2\n", "gzip")],
    "mha": [MHA + CHEST.tobytes()],
    "npy": [grids.npy(CHEST)],
}


def attempt(files: Sequence[bytes]) -> str:
    """Reads as the service does; returns the error's code, or ``ok``."""
    begun = time.perf_counter()
    try:
        volume = read_volume(files, limits=LIMITS, decode=DECODERS.decode)
        values = volume.scan.values
        assert np.isfinite(values).all()
        assert len(values) <= LIMITS.max_slices
        assert values.size * 2 <= LIMITS.max_bytes
        code = "ok"
    except LungsegError as error:
        code = error.code
        assert PROBLEMS[code][0] < 500
    assert time.perf_counter() - begun < PATIENCE_S
    return code


def test_mutated_volumes_give_a_volume_or_a_documented_error() -> None:
    """One or two files of a series are changed; of the others there is but one."""
    random = np.random.default_rng(20260101)
    names = list(SEEDS)
    outcomes: dict[str, int] = {}
    for number in range(inputs(SHORT)):
        files = [*SEEDS[names[number % len(names)]]]
        for _ in range(2):
            place = int(random.integers(len(files)))
            files[place] = mutate(files[place], random)
        code = attempt(files)
        outcomes[code] = outcomes.get(code, 0) + 1
    print(outcomes)
    assert len(outcomes) > 4, outcomes


@pytest.mark.parametrize("name", SEEDS)
def test_the_seeds_themselves_are_read(name: str) -> None:
    assert attempt(SEEDS[name]) == "ok"
