"""What requests to the model repository ask for, and nothing that would be ignored."""

from __future__ import annotations

from typing import Any

from lungseg.core.errors import InvalidParameter
from lungseg.web.json_object import as_object, loaded
from lungseg.web.surfaces.v2.codec import only, parameters_of

_NAMES, _NAME_CHARACTERS = 4, 40
"""How much of unknown members is repeated to who sent them."""


def load_version(body: bytes) -> str | None:
    """The version that a load request asks for, None for the newest.

    Either ``{"parameters": {"version": "1"}}``, or Triton's way: a ``config`` whose
    ``version_policy`` names a specific version.

    Raises:
        MalformedRequest, InvalidParameter: it asks for something else.
    """
    parameters = parameters_of(_known(loaded(body or b"{}", "request"), "request", "parameters"))
    if any(name.startswith("file:") for name in parameters):
        raise InvalidParameter("models are not taken from clients, only from the models folder")
    _known(parameters, "parameters", "version", "config")
    config, version = parameters.get("config"), parameters.get("version")
    if config is not None and version is not None:
        raise InvalidParameter("expected version or config, received both")
    if config is not None:
        version = _policy_version(config)
    if version is None:
        return None
    if type(version) not in (str, int):
        raise InvalidParameter("expected version as a number or its text")
    return str(version)


def _policy_version(config: Any) -> Any:
    """The version in a model configuration of Triton's; None = the newest."""
    if not isinstance(config, str):
        raise InvalidParameter("expected config as JSON in a string")
    known = _known(loaded(config.encode(), "config"), "config", "version_policy")
    policy = as_object(known.get("version_policy", {}), "version_policy")
    _known(policy, "version_policy", "specific")
    if "specific" not in policy:
        return None
    specific = as_object(policy["specific"], "specific")
    versions = _known(specific, "specific", "versions").get("versions")
    return only(versions, "expected one specific version")


def check_unload(body: bytes) -> None:
    """Checks an unload request, which has nothing to say.

    Raises:
        MalformedRequest, InvalidParameter: it asks for something.
    """
    parameters = parameters_of(_known(loaded(body or b"{}", "request"), "request", "parameters"))
    _known(parameters, "parameters", "unload_dependents")  # Triton's client sends it; we have none


def wants_ready(body: bytes) -> bool:
    """Whether an index request asks for loaded versions only.

    Raises:
        MalformedRequest, InvalidParameter: it asks for something else.
    """
    ready = _known(loaded(body or b"{}", "request"), "request", "ready").get("ready", False)
    if not isinstance(ready, bool):
        raise InvalidParameter("expected ready as true or false")
    return ready


def _known(document: dict[str, Any], what: str, *names: str) -> dict[str, Any]:
    """Refuses members that would be ignored: one that is misspelt would load another version."""
    if strange := document.keys() - set(names):
        shown = ", ".join(ascii(name[:_NAME_CHARACTERS]) for name in sorted(strange)[:_NAMES])
        raise InvalidParameter(f"expected only {', '.join(names)} in {what}, received {shown}")
    return document
