"""The whole service under /lungs/."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.stack import Stack, running

pytestmark = pytest.mark.container


@pytest.fixture(scope="module")
def beneath(
    image: str,
    nginx_image: str,
    bundle: Path,
    key_line: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    stack = Stack(
        name="lungseg-test-subpath",
        folder=tmp_path_factory.mktemp("subpath"),
        nginx_image=nginx_image,
        prefix="/lungs",
        overrides=("docker/compose.keys.yml", "docker/compose.subpath.yml"),
    )
    with running(stack, bundle, key_line) as up:
        yield up


def test_docs_and_their_document_are_found_beneath_the_path(beneath: Stack) -> None:
    """/docs points at the document beneath the path, whose server is the path."""
    with beneath.client() as client:
        docs = client.get("/docs")
        document = client.get("/openapi.json")
    assert docs.status_code == 200
    assert "/lungs/openapi.json" in docs.text
    assert document.json()["servers"] == [{"url": "/lungs"}]


def test_slices_are_segmented_beneath_the_path_and_nowhere_else(beneath: Stack, png: bytes) -> None:
    """Outside of the path is somebody else's: a problem says so."""
    with beneath.client() as client:
        inside = client.post("/segment", content=png)
        protocol = client.get("/v2/health/ready")
        outside = client.get(f"https://127.0.0.1:{beneath.https}/readyz")
        alike = client.get(f"https://127.0.0.1:{beneath.https}/lungsx/readyz")
    assert (inside.status_code, protocol.status_code) == (200, 200)
    assert (outside.status_code, outside.json()["code"]) == (404, "not_found")
    assert alike.status_code == 404
