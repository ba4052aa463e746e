"""A real browser, as tests, measurements and screenshots start it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

ARGUMENTS = (
    "--no-sandbox",  # a container's root may not have one
    "--enable-unsafe-swiftshader",  # WebGL, without a graphics card
)


def missing() -> str:
    """What a browser lacks here; empty where it can be started."""
    try:
        import playwright.sync_api  # noqa: F401 - whether it is there
    except ImportError:
        return "playwright is not installed (make setup)"
    return "" if shutil.which("chromium") else "there is no Chromium (apt-get install chromium)"


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright, which downloads none of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()
