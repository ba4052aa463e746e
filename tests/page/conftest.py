"""The page in a real browser: one browser for all, a context of its own for each test."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bench.browser import chromium, missing
from tests.serving import Running

PATIENCE_MS = 15_000
"""Of whatever is waited for: far beyond what it takes."""
DRAWN_BY_CPU = "GL Driver Message"
"""Of a browser that has no graphics card for what WebGL draws."""
DISTURBED = "ERR_NETWORK_CHANGED"
"""Chromium drops what it loads when the machine gets another network: other tests make some."""
DROP = """([files, target]) => {
  const transfer = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name));
  }
  const type = target === "paste" ? "paste" : "drop";
  const event = type === "paste"
    ? new ClipboardEvent(type, {clipboardData: transfer, bubbles: true})
    : new DragEvent(type, {dataTransfer: transfer, bubbles: true, cancelable: true});
  document.body.dispatchEvent(event);
}"""
"""Drops or pastes files as a person's hand would."""


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """Debian's Chromium; it ends with these tests, since others have event loops of their own."""
    if reason := missing():
        pytest.skip(reason)
    with chromium() as started:
        yield started


@dataclass
class Visit:
    """One visit of the page, and what a browser complained about.

    ``allowed`` are statuses that the test provokes: browsers complain about those, too.
    """

    page: Any
    host: str
    complaints: list[str] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    allowed: set[str] = field(default_factory=lambda: {DRAWN_BY_CPU})

    def open(self, path: str = "/") -> Any:
        """Opens an address of the service and returns the browser's page."""
        self.page.goto(f"http://{self.host}{path}")
        if any(DISTURBED in text for text in self.complaints):
            self.page.goto(f"http://{self.host}{path}")
        return self.page

    def hear(self, request: Any) -> None:
        """Remembers what was asked for; the browser's driver wants a function of Python."""
        self.requests.append(request)

    def drop(self, *files: Path, paste: bool = False) -> None:
        """Drops files onto the page, or pastes them."""
        sent = [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files]
        self.page.evaluate(DROP, [sent, "paste" if paste else "drop"])

    def status(self, text: str) -> str:
        """Waits until the page says so, and returns all that it says."""
        line = self.page.locator("#status", has_text=text)
        line.wait_for()
        return line.inner_text()

    def check_access(self) -> None:
        """Nothing is wider than the window, and axe finds nothing that keeps people out."""
        from axe_playwright_python.sync_playwright import Axe

        assert self.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        found = Axe().run(self.page).response["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []

    def check(self) -> None:
        """Nothing came from elsewhere, and nothing went wrong that the test did not provoke."""
        foreign = [
            request.url
            for request in self.requests
            if urlsplit(request.url).scheme in ("http", "https", "ws", "wss")
            and urlsplit(request.url).netloc != self.host
        ]
        assert foreign == []
        expected = {*self.allowed, DISTURBED}
        wrong = [text for text in self.complaints if not any(word in text for word in expected)]
        assert wrong == []


def focused(page: Any) -> str:
    """What the element says that has the focus; the page itself would say everything."""
    return page.evaluate(
        "(({ariaLabel, innerText}) => ariaLabel || innerText)(document.activeElement)"
    )


@pytest.fixture
def visits(browser: Any) -> Iterator[Any]:
    """Makes visits, of any service and any size of window; each is checked at its end."""
    begun: list[Visit] = []

    def visit(service: Running, *, width: int = 1280, height: int = 860, **options: Any) -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(
            "document.addEventListener('securitypolicyviolation',"
            " (event) => console.error('policy', event.violatedDirective, event.blockedURI))"
        )
        page = context.new_page()
        made = Visit(page=page, host=urlsplit(service.url).netloc)
        page.on("request", made.hear)
        page.on("pageerror", lambda error: made.complaints.append(str(error)))
        page.on(
            "console",
            lambda line: line.type in ("error", "warning") and made.complaints.append(line.text),
        )
        begun.append(made)
        return made

    yield visit
    for made in begun:
        made.check()
        made.page.context.close()
