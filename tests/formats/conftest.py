"""Slices that the tests of formats share."""

from __future__ import annotations

import pytest

from training.synthetic.phantom import Phantom, dicom_bytes, make_phantom


@pytest.fixture(scope="session")
def small() -> Phantom:
    return make_phantom((61, 83), seed=2)


@pytest.fixture(scope="session")
def plain(small: Phantom) -> bytes:
    return dicom_bytes(small)
