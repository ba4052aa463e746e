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

    print(json.dumps(create_app(_settings({})).openapi(), indent=2, sort_keys=True))
    return OK


def _sample(_options: argparse.Namespace) -> int:
    print(sample_slice())
    print(SAMPLE_CITATION, file=sys.stderr)
    return OK


def _settings(given: dict[str, Any]) -> Settings:
    from lungseg.settings import Settings

    try:
        return Settings(**given)
    except ValidationError as error:
        wrong = [f"LUNGSEG_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        raise UsageError("\nlungseg: ".join(wrong)) from None
