"""One image and one composition for all tests of this folder."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container import engine
from tests.container.stack import IMAGE_TAG, KEY, Stack, running
from training.synthetic.phantom import make_phantom, write_png


@pytest.fixture(scope="session")
def docker() -> None:
    reason = engine.start()
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def image(docker: None) -> str:
    """The service's image, built as users build it."""
    flags = "--quiet --network host"
    said = engine.run("make", "image", f"IMAGE=lungseg:{IMAGE_TAG}", f"DOCKER_BUILD_FLAGS={flags}")
    print(said[-800:])
    return f"lungseg:{IMAGE_TAG}"


@pytest.fixture(scope="session")
def nginx_image(docker: None) -> str:
    return engine.gateway_image()


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The newest bundle of this repository."""
    versions = (engine.ROOT / "models" / "lung-unet").iterdir()
    return max((v for v in versions if v.name.isdecimal()), key=lambda v: int(v.name))


@pytest.fixture(scope="session")
def key_line() -> str:
    return f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"


@pytest.fixture(scope="session")
def stack(
    image: str,
    nginx_image: str,
    bundle: Path,
    key_line: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    for parent in folder.parents[:2]:
        parent.chmod(0o755)  # pytest makes them for its own user alone
    with running(
        Stack(name="lungseg-test", folder=folder, nginx_image=nginx_image), bundle, key_line
    ) as up:
        yield up


@pytest.fixture(scope="session")
def png(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("phantom") / "slice.png"
    write_png(make_phantom(size=(320, 384), seed=1), path)
    return path.read_bytes()
