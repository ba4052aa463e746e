"""``lungseg serve``, ``openapi`` and ``sample``: what needs no slice of one's own."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lungseg.cli.errors import OK, UsageError
from lungseg.packaged import SAMPLE_CITATION, sample_slice

if TYPE_CHECKING:
    from lungseg.settings import Settings


def add_to(commands: Any) -> None:
    """Adds the commands."""
    text = "run the server; LUNGSEG_* variables set the rest"
    serve = commands.add_parser("serve", help=text, description=text)
    serve.add_argument("--host", help="address to listen on")
    serve.add_argument("--port", type=int, help="TCP port")
    serve.add_argument("--models-dir", type=Path, help="folder of models")
    serve.set_defaults(run=_serve)
    text = "print the OpenAPI document"
    commands.add_parser("openapi", help=text, description=text).set_defaults(run=_openapi)
    text = "print the path of a real chest CT slice that may be shown"
    commands.add_parser("sample", help=text, description=text).set_defaults(run=_sample)


def _serve(options: argparse.Namespace) -> int:
    from lungseg.server import serve  # FastAPI, which no other command needs

    names = ("host", "port", "models_dir")
    given = {name: getattr(options, name) for name in names}
    serve(_settings({name: value for name, value in given.items() if value is not None}))
    return OK


def _openapi(_options: argparse.Namespace) -> int:
    from lungseg.app import create_app

    settings = _settings({})
    try:
        app = create_app(settings)
    except ValueError as error:
        raise UsageError(str(error)) from None
    print(json.dumps(app.openapi(), indent=2, sort_keys=True))
    return OK


def _sample(_options: argparse.Namespace) -> int:
    print(sample_slice())
    print(SAMPLE_CITATION, file=sys.stderr)
    return OK


def _settings(given: dict[str, Any]) -> Settings:
    """The settings of this process; what is wrong with them is said under the variables' names."""
    from lungseg.settings import PREFIX, Settings, empty_key_variables, expectation

    try:
        if empty := empty_key_variables():
            raise UsageError(f"{empty[0]}: expected at least one key, received an empty value")
        return Settings(**given)
    except ValidationError as error:
        sentences: list[str] = []
        for item in error.errors():
            name = str(item["loc"][0])
            # No value is quoted: it may be a key that stands in the wrong variable.
            reason = f"expected {expectation(name)}, received another value".replace("`", "")
            said = item.get("ctx", {}).get("error", reason)
            sentences.append(f"{PREFIX}{name.upper()}: {said}")
        raise UsageError("\nlungseg: ".join(sentences)) from None
    except ValueError as error:
        raise UsageError(str(error)) from None
