"""``python -m bench screenshots``: pictures of the page with what may be shown, for the documents.

The sample slice is real, and may be shown: see ``service/lungseg/samples/README.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import browser, host

FOLDER = Path("docs/screenshots")
WIDTH, HEIGHT = 1280, 800


def start(page: Any) -> None:
    """What everybody sees first."""
    page.get_by_text("lungseg 0").wait_for()


def sample_slice(page: Any) -> None:
    """The sample slice with outline, figures and a value under the pointer."""
    page.get_by_role("button", name="Try the sample slice").click()
    page.locator("#status", has_text="outlined").wait_for()
    box = page.locator(".stage canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.42, box["y"] + box["height"] * 0.4)


SHOTS: dict[str, Callable[[Any], None]] = {"start": start, "slice": sample_slice}
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
