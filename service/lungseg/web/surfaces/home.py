"""``/``: a page for people, and for programs what this is, what it takes and where to go on."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel, Field

from lungseg.web.state import state_of
from lungseg.web.surface import Surface
from lungseg.web.surfaces.page import page
from lungseg.web.surfaces.segment import preferred

RESEARCH_ONLY = "Research use only, not a medical device."
router = APIRouter(tags=["operations"])
SURFACE = Surface(prefixes=("/",), router=router, needs_key=False)
ACCEPTED = {
    "application/json": "json",
    "application/*": "json",
    "text/html": "page",
    "text/*": "page",
    "*/*": "page",
}
LIMITS = (
    *("max_body_bytes", "max_pixels", "max_batch_items", "max_batch_bytes"),
    *("max_volume_bytes", "max_volume_slices"),
)
"""Settings that a caller may know before it sends anything."""
_LINKS = {"docs": "/docs", "openapi": "/openapi.json", "models": "/models", "health": "/readyz"}


class Home(BaseModel):
    """What answers here."""

    name: str
    version: str
    notice: str
    links: dict[str, str]
    needs_key: bool = Field(description="Whether requests for work need an API key.")
    limits: dict[str, int] = Field(description="The settings of these names.")


@router.get(
    "/",
    summary="Say what this is",
    response_model=Home,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
async def home(request: Request) -> Response:
    """A page where it is switched on, or name, version, limits and where to go on; needs no key."""
    state = state_of(request.scope)
    wanted = preferred(request.headers.get("accept", "*/*"), ACCEPTED)
    root_path = request.scope.get("root_path", "")
    if wanted == "page" and state.settings.page:
        if not request.scope.get("raw_path", b"/").endswith(b"/"):
            # Below an address without it, the page would look for its files beside itself.
            return RedirectResponse(f"{root_path}/", 307)
        return await page(request, "index.html")
    found = Home(
        name=request.app.title,
        version=request.app.version,
        notice=RESEARCH_ONLY,
        links={name: f"{root_path}{path}" for name, path in _LINKS.items()},
        needs_key=len(state.keys) > 0,
        limits={name: getattr(state.settings, name) for name in LIMITS},
    )
    headers = {"Vary": "Accept"}
    return Response(found.model_dump_json(), media_type="application/json", headers=headers)
