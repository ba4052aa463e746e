"""The whole service under /lungs/."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.browser import chromium, missing
from lungseg.web.surfaces.page import POLICY
from tests.container.stack import KEY, Stack, running

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


def test_pages_and_what_they_load_are_found_beneath_the_path(beneath: Stack) -> None:
    """The page and /docs name files beneath the path, whose document has the path as its server."""
    with beneath.client() as client:
        for path in ("/", "/docs"):
            page = client.get(path)
            assert page.headers.get_list("content-security-policy") == [POLICY]
            named = re.findall(r'(?:href|src)="([^"]+)"', page.text)
            assert len(named) > 4
            for address in named:
                assert client.get(str(page.url.join(address))).status_code == 200, address
        document = client.get("/openapi.json")
    assert document.json()["servers"] == [{"url": "/lungs"}]


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_the_page_works_beneath_the_path_in_a_browser(beneath: Stack, png: bytes) -> None:
    """Through the gateway with its TLS and a key, and the interface beside it."""
    with chromium() as browser:
        page = browser.new_page(ignore_https_errors=True)
        page.goto(f"{beneath.url}/")
        sent = {"name": "slice.png", "mimeType": "image/png", "buffer": png}
        page.locator("#files").set_input_files(sent)
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Use this key").click()
        page.locator("#status", has_text="outlined").wait_for()
        page.get_by_role("link", name="API", exact=True).click()
        page.get_by_text("Segment one CT slice").wait_for()


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
