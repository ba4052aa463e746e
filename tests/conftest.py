"""What all tests share: the phantom in every format, stand-in bundles, a running service."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.serving import Running, running
from tests.standin import write_bundle
from training.synthetic.phantom import Phantom, dicom_bytes, make_phantom, picture


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A chest slice whose sides all differ, neither square nor even."""
    return make_phantom((337, 511), seed=3)


@pytest.fixture(scope="session")
def grey_png(phantom: Phantom) -> bytes:
    return encode(picture(phantom), "PNG")


@pytest.fixture(scope="session")
def dicom(phantom: Phantom) -> bytes:
    return dicom_bytes(phantom)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with one stand-in version; tests that change it make their own."""
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def service(models: Path) -> Iterator[Running]:
    """A service that tests only ask, never change."""
    with running(models) as started:
        yield started


@pytest.fixture
def client(service: Running) -> httpx.Client:
    return service.client


def encode(pixels: np.ndarray, form: str, **options: object) -> bytes:
    """Pixels as an encoded picture."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()
