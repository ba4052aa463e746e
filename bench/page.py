"""``python -m bench page``: what the page costs, from the first byte to the outlined lungs."""

from __future__ import annotations

import base64
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import browser, host, samples

DROPS = 10
LIMITS = {
    "first view, KB": 150.0,
    "first view, ms": 1000.0,
    "drop to outline, ms": 300.0,
    "drop to planes, ms": 5000.0,
}
WIDTH, HEIGHT = 1440, 900
DROP = """([name, content]) => new Promise((done) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  const line = document.getElementById("status");
  line.textContent = "";
  const begun = performance.now();
  const watcher = new MutationObserver(() => {
    if (!line.textContent.includes("outlined")) return;
    watcher.disconnect();
    requestAnimationFrame(() => done(performance.now() - begun));
  });
  watcher.observe(line, {childList: true, characterData: true, subtree: true});
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
})"""
"""Drops a slice and tells after how many ms its outline is drawn."""

LOADED = """(() => {
  const files = new Map(performance.getEntries().filter((entry) => entry.responseEnd)
    .map((entry) => [entry.name + entry.initiatorType, entry]));
  const all = [...files.values()];
  return [
    all.reduce((sum, entry) => sum + entry.encodedBodySize, 0),
    Math.max(...all.map((entry) => entry.responseEnd)),
  ];
})()"""
"""Bytes of all that was loaded, as sent, and when the last of them had come, in ms."""


def run(models: Path, model: str) -> None:
    """Prints size and time of the first view, and the times from drop to outline and planes."""
    if reason := browser.missing():
        raise SystemExit(reason)
    contents = {"png": samples.picture(), **samples.dicoms()}
    with host.service(models, model) as service, browser.chromium() as started:
        before_mb = service.rss_mb()
        page = started.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        kilobytes, first_ms = first_view(page, f"http://127.0.0.1:{service.port}/")
        report("first view, KB", kilobytes)
        report("first view, ms", first_ms)
        print(f"{'memory that serving it took, MB':<32} {service.rss_mb() - before_mb:8.1f}")
        for name, content in contents.items():
            sent = [f"slice.{name}", base64.b64encode(content).decode()]
            page.evaluate(DROP, sent)  # the first one warms browser and service
            times = [page.evaluate(DROP, sent) for _ in range(DROPS)]
            report("drop to outline, ms", statistics.median(times), f"{name}, median of {DROPS}")
        times_of_scan(page)


def times_of_scan(page: Any) -> None:
    """From choosing a phantom of 100 slices until planes and surfaces are drawn, without a GPU."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "phantom.nii"
        file.write_bytes(samples.volume())
        for what in ("the first, with NiiVue's loading", "another"):
            page.locator("#new").click()
            begun = time.perf_counter()
            page.locator("#files").set_input_files(file)
            page.locator(".planes[data-state=ready]").wait_for()
            page.locator(".surfaces[data-state]").wait_for()
            report("drop to planes, ms", 1000 * (time.perf_counter() - begun), what)


def first_view(page: Any, address: str) -> tuple[float, float]:
    """Its size in KB as sent, and the ms until it is whole and the service has answered it."""
    page.goto(address)
    page.get_by_text("lungseg 0").wait_for(state="attached")
    size_bytes, last_ms = page.evaluate(LOADED)
    return size_bytes / 1000, last_ms


def report(name: str, value: float, what: str = "") -> None:
    """A figure beside its limit."""
    verdict = "ok" if value < LIMITS[name] else "TOO MUCH"
    print(f"{name:<32} {value:8.1f}  of {LIMITS[name]:.0f}  {verdict}  {what}")
