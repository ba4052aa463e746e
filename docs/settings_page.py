"""Prints ``docs/settings.md`` from ``lungseg.settings.Settings`` (``make docs``)."""

from __future__ import annotations

import ast
import inspect
import typing
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from lungseg.settings import BOUNDS, PATTERNS, Settings

THEMES = {
    "host": "Address",
    "models_dir": "Models",
    "max_header_bytes": "Limits of a request",
    "workers": "Work, queue, start and stop",
    "decoders": "Decoders of compressed DICOM",
    "providers": "Inference",
    "api_keys": "API keys and browsers",
    "integrations": "Programs that are answered in their own way",
    "log_format": "Log and traces",
}
"""Each theme by its first setting; it goes on until the next theme, in the order of the class."""
UNITS = {
    "_s": "s", "_ms": "ms", "_bytes": "bytes", "_fields": "fields", "_pixels": "pixels",
    "_items": "slices", "_max_size": "slices", "queue_size": "requests", "workers": "threads",
    "_threads": "threads", "_versions": "versions", "decoders": "processes",
}  # fmt: skip
"""Units by the end of a setting's name."""
HEAD = """\
# Settings

`make docs` writes this page from `service/lungseg/settings.py`; change it there.

A setting is an environment variable, or a line of a file `.env` in the working folder; the
environment wins. All of them are read once, at the start. A value outside its range ends the start
with a sentence that names the variable, and exit status 2. A variable that begins with `LUNGSEG_`
and is none of these, nor the client's `LUNGSEG_API_KEY` or the composition's
`LUNGSEG_TAG`, changes nothing: a warning in the log names it and the nearest setting. An
empty value counts as not set; only a source of API keys that is named but empty ends the start, as
nobody means to let everybody call.
"""
TABLE = "| setting | default | unit | values | meaning |\n|---|---|---|---|---|"


def render() -> str:
    """The whole page."""
    lines, meanings = [HEAD.rstrip()], sentences()
    for name, field in Settings.model_fields.items():
        if name in THEMES:
            lines += ["", f"## {THEMES[name]}", "", TABLE]
        cells = (
            f"`LUNGSEG_{name.upper()}`",
            "depends" if field.default_factory else _default(field.default),
            next((unit for end, unit in UNITS.items() if name.endswith(end)), ""),
            _values(field),
            meanings[name],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def sentences() -> dict[str, str]:
    """The sentence below each setting; read here, as pydantic would read them at each start."""
    (body,) = ast.parse(inspect.getsource(Settings)).body
    found: dict[str, str] = {}
    if isinstance(body, ast.ClassDef):
        for field, below in zip(body.body, body.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                    value=ast.Constant(value=text)
                ):
                    found[name] = " ".join(str(text).split())
    return found


def _default(value: Any) -> str:
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, tuple):
        value = ",".join(value)
    if isinstance(value, float):
        value = f"{value:g}"
    return "none" if value in (None, "") else f"`{value}`"


def _values(field: FieldInfo) -> str:
    """What may be set: the choices, the range or the kind."""
    if choices := _choices(field.annotation):
        return ", ".join(f"`{choice}`" for choice in choices)
    bounds = {
        name: getattr(item, name)
        for item in field.metadata
        for name in BOUNDS
        if hasattr(item, name)
    }
    if {"ge", "le"} <= bounds.keys():
        return f"{bounds['ge']:g} to {bounds['le']:g}"
    if bounds:
        return " and ".join(BOUNDS[name].format(bound) for name, bound in bounds.items())
    patterns = [item.pattern for item in field.metadata if getattr(item, "pattern", None)]
    if patterns:
        return PATTERNS[patterns[0]]
    if typing.get_origin(field.annotation) is tuple:
        return "a list, separated by commas"
    kinds = (field.annotation, *typing.get_args(field.annotation))
    return "a path" if Path in kinds else "text"


def _choices(annotation: Any) -> tuple[str, ...]:
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)
    return ("true", "false") if annotation is bool else ()


if __name__ == "__main__":
    print(render(), end="")
