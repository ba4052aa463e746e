"""JSON of requests, which is read so that others go on meanwhile."""

from __future__ import annotations

import json
from typing import Any

from lungseg.core.errors import MalformedRequest

LARGE_JSON_BYTES = 4 * 1024 * 1024
"""Three images of numbers; from here JSON is read in Python, at a fifth of the speed."""


class _PatientDecoder(json.JSONDecoder):
    """Reads JSON in Python: the scanner in C lets no other thread go on until it has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]


def loaded(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        MalformedRequest: the bytes are no JSON, or of something else.
    """
    try:
        decoder = _PatientDecoder if len(text) > LARGE_JSON_BYTES else json.JSONDecoder
        return as_object(json.loads(text, cls=decoder), what)
    except (ValueError, RecursionError):
        raise MalformedRequest("expected JSON, received other bytes") from None


def as_object(value: Any, what: str) -> dict[str, Any]:
    """A member that has to be an object; raises ``MalformedRequest`` where it is not."""
    if not isinstance(value, dict):
        raise MalformedRequest(f"expected {what} as a JSON object")
    return value
