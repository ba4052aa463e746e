"""``/models``: what is there, what serves, and what was refused for which reason."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lungseg.inference.contract import Contract
from lungseg.inference.registry import Family, Registry, Version
from lungseg.web.schemas import ModelInfo, ModelList, VersionInfo, problems
from lungseg.web.state import state_of
from lungseg.web.surface import Surface

router = APIRouter(prefix="/models", tags=["models"])
SURFACE = Surface(prefixes=("/models",), router=router)
_NOT_THERE = problems("unauthorized", "unknown_model", "invalid_parameter", "model_not_ready")


@router.get("", responses=problems("unauthorized"), summary="List models and versions")
async def list_models(request: Request) -> ModelList:
    """All versions in the models folder, newest first, with state and reason."""
    registry = state_of(request.scope).registry
    models = [_model(registry, name, family) for name, family in registry.families().items()]
    return ModelList(models=sorted(models, key=lambda model: model.name))


@router.get("/{model}/versions/{version}", responses=_NOT_THERE, summary="Show a contract")
async def show_contract(request: Request, model: str, version: str) -> Contract:
    """The contract of a loaded version."""
    return state_of(request.scope).registry.get(model, version).contract


@router.get(
    "/{model}/versions/{version}/card",
    responses={200: {"content": {"text/markdown": {}}}, **_NOT_THERE},
    response_class=Response,
    summary="Show a model card",
)
async def show_card(request: Request, model: str, version: str) -> Response:
    """The card of a loaded version, in Markdown."""
    card = state_of(request.scope).registry.get(model, version).card
    return Response(card, media_type="text/markdown")


def _model(registry: Registry, name: str, family: Family) -> ModelInfo:
    versions = [_version(version, family) for _, version in sorted(family.versions.items())]
    pinned = None if family.pin is None else str(family.pin)
    default = name == registry.policy.model
    return ModelInfo(name=name, default=default, pinned=pinned, versions=versions[::-1])


def _version(version: Version, family: Family) -> VersionInfo:
    contract = version.model.contract if version.model else None
    return VersionInfo(
        version=str(version.number),
        state=version.state,
        reason=version.reason,
        serving=version is family.serving,
        sha256=contract.sha256 if contract else None,
        metrics=contract.metrics if contract else {},
    )
