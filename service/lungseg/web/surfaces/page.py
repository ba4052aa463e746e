"""The page for people at ``/``: its files, the samples that it offers, and the page of the API.

Everything comes from this server, and the browser is told to load nothing else. Files are read
when they are asked for; nothing of them stays in memory.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from lungseg.packaged import page_folder, sample_slice
from lungseg.web.state import state_of
from lungseg.web.surface import Surface

FILES = "/page"
DOCS_FILES = "/docs-files"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a browser may load for a page, and from where: nothing but what this server has."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept",
}
OF_DOCS = ("style.css", "docs.js", "service.js", "theme.js", "icon.svg")
"""What the page of the interface needs, which is there without the other."""
KEPT = "no-cache"
"""Browsers may keep the files, which hold no data, and ask each time whether they have changed."""
PACKED = ".js.gz"
"""Ending of scripts that lie packed and go out so; every browser unpacks them."""
router = APIRouter(include_in_schema=False)
SURFACE = Surface(
    # They hold no data, and the pages are where a key can be entered.
    prefixes=(FILES, "/docs", DOCS_FILES, "/openapi.json"),
    router=router,
    needs_key=False,
)


async def page(request: Request, name: str) -> Response:
    """A whole page of ours; relative addresses in it need an address that ends as they expect."""
    response = await _files(page_folder()).get_response(name, request.scope)
    response.headers.update({**HEADERS, "Cache-Control": KEPT})
    return response


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The interface, to read and to try."""
    return await page(request, "docs.html")


@router.get(FILES + "/samples/{name}")
async def sample(request: Request, name: str) -> Response:
    """A sample, as the package has it."""
    return await _file(request, name, sample_slice().parent)


@router.get(FILES + "/{name:path}")
async def file(request: Request, name: str) -> Response:
    """A script, a style or a picture of the page."""
    return await _file(request, name, page_folder())


async def _file(request: Request, name: str, folder: Path) -> Response:
    if name not in OF_DOCS and not state_of(request.scope).settings.page:
        raise HTTPException(404)
    response = await _files(folder).get_response(name, request.scope)
    if response.media_type == "text/html":
        raise HTTPException(404)  # whole pages have addresses of their own, with their policy
    response.headers["Cache-Control"] = KEPT
    if name.endswith(PACKED):
        response.headers["Content-Encoding"] = "gzip"
    return response


@cache
def _files(folder: Path) -> StaticFiles:
    return StaticFiles(directory=folder)
