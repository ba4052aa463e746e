"""``/``: what this is and where to go on; and the OpenAPI page, which is made elsewhere."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel

from lungseg.web.surface import Surface

RESEARCH_ONLY = "Research use only, not a medical device."
DOCS_FILES = "/docs-files"
router = APIRouter(tags=["operations"])
SURFACES = (
    Surface(prefixes=("/",), router=router, needs_key=False),
    # They hold no data, and the page is where a key can be entered.
    Surface(prefixes=("/docs", DOCS_FILES, "/openapi.json"), needs_key=False),
)
_LINKS = {"docs": "/docs", "openapi": "/openapi.json", "models": "/models", "health": "/readyz"}


class Home(BaseModel):
    """What answers here."""

    name: str
    version: str
    notice: str
    links: dict[str, str]


@router.get("/", summary="Say what this is")
async def home(request: Request) -> Home:
    """Name, version and where to go on; needs no key."""
    root_path = request.scope.get("root_path", "")
    links = {name: f"{root_path}{path}" for name, path in _LINKS.items()}
    app = request.app
    return Home(name=app.title, version=app.version, notice=RESEARCH_ONLY, links=links)
