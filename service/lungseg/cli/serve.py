"""``lungseg serve``, ``openapi`` and ``sample``: what needs no slice of one's own."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from lungseg.cli.configured import NO_KEYS, configured
from lungseg.cli.errors import OK, UsageError
from lungseg.cli.streams import write_output
from lungseg.packaged import SAMPLE_CITATION, sample_slice, sample_volume


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
    sample = commands.add_parser("sample", help=text, description=text)
    sample.add_argument("--volume", action="store_true", help="of a whole chest, in coarse voxels")
    sample.set_defaults(run=_sample)


def _serve(options: argparse.Namespace) -> int:
    from lungseg.server import serve  # FastAPI, which no other command needs
    from lungseg.settings import empty_key_variables

    names = ("host", "port", "models_dir")
    given = {name: getattr(options, name) for name in names}
    settings = configured({name: value for name, value in given.items() if value is not None})
    if empty := empty_key_variables():
        raise UsageError(f"{empty[0]}: expected at least one key, received an empty value")
    serve(settings)
    return OK


def _openapi(_options: argparse.Namespace) -> int:
    from lungseg.app import create_app

    settings = configured(NO_KEYS)
    try:
        app = create_app(settings)
    except ValueError as error:
        raise UsageError(str(error)) from None
    document = json.dumps(app.openapi(), indent=2, sort_keys=True)
    write_output(document.encode() + b"\n")
    return OK


def _sample(options: argparse.Namespace) -> int:
    path = sample_volume() if options.volume else sample_slice()
    write_output(os.fsencode(path) + b"\n")
    print(SAMPLE_CITATION, file=sys.stderr)
    return OK
