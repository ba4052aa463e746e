"""``python -m bench screenshots``: pictures of the page with what may be shown, for the documents.

The sample slice is real, and may be shown: see ``service/lungseg/samples/README.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import browser, host, samples

FOLDER = Path("docs/screenshots")
WIDTH, HEIGHT = 1280, 800
SETTLED_MS = 500
"""For what a graphics processor still draws."""


def start(page: Any) -> None:
    """What everybody sees first."""
    page.get_by_text("lungseg 0").wait_for()


def sample_slice(page: Any) -> None:
    """The sample slice with outline, figures and a value under the pointer."""
    page.get_by_role("button", name="Try the sample slice").click()
    page.locator("#status", has_text="outlined").wait_for()
    box = page.locator(".stage canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.42, box["y"] + box["height"] * 0.4)


def sample_scan(page: Any) -> None:
    """The sample scan in three planes and as surfaces, with a value under the pointer."""
    page.get_by_role("button", name="Try the sample scan").click()
    drawn(page)
    box = page.locator(".axial canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.45)


def compared(page: Any) -> None:
    """The sample scan beside one that was made of it."""
    sample_scan(page)
    page.locator("#files").set_input_files(
        {"name": "second.nii.gz", "mimeType": "", "buffer": samples.denser()}
    )
    page.locator(".comparison").wait_for()
    drawn(page)


def drawn(page: Any) -> None:
    """Waits until planes and surfaces are there."""
    page.locator(".planes[data-state=ready]").wait_for()
    page.locator(".surfaces[data-state=ready]").wait_for()
    page.wait_for_timeout(SETTLED_MS)


SHOTS: dict[str, Callable[[Any], None]] = {
    "start": start,
    "slice": sample_slice,
    "scan": sample_scan,
    "compare": compared,
}
"""How each picture comes about."""


def run(models: Path, model: str) -> None:
    """Writes each picture in light and in dark."""
    if reason := browser.missing():
        raise SystemExit(reason)
    FOLDER.mkdir(exist_ok=True)
    with host.service(models, model) as service, browser.chromium() as started:
        for colours in ("light", "dark"):
            for name, arrange in SHOTS.items():
                size = {"width": WIDTH, "height": HEIGHT}
                page = started.new_page(viewport=size, color_scheme=colours)
                page.goto(f"http://127.0.0.1:{service.port}/")
                arrange(page)
                file = FOLDER / f"{name}-{colours}.png"
                page.screenshot(path=file)
                page.close()
                print(file)
