"""Integrations are there where a setting names them, and nowhere else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.serving import Running

ROOT = Path(__file__).parents[2]
MOST_LINES = 1200
LOADED = """
import sys
import lungseg.server
from lungseg.app import create_app
from lungseg.cli import main
from lungseg.settings import Settings
main(["sample"])
print([name for name in sys.modules if name.partition(".")[0] in ("ray", "pyarrow")])
for names in ("", "labelstudio", "monailabel,labelstudio,monailabel"):
    create_app(Settings(_env_file=None, **({"integrations": names} if names else {})))
    print([name for name in sys.modules if name.startswith("lungseg.integrations.")])
"""


def test_only_what_is_named_is_loaded() -> None:
    """Each by itself, once, and none by a plain service or another command."""
    command = [sys.executable, "-c", LOADED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = [sorted(ast.literal_eval(line)) for line in done.stdout.splitlines()[1:]]
    modules = [f"lungseg.integrations.{name}" for name in ("labelstudio", "monailabel")]
    assert loaded == [[], [], modules[:1], modules]


def test_a_plain_service_has_none_of_them(service: Running, monailabel: Running) -> None:
    """Nothing answers there, and the OpenAPI document is the same either way."""
    for path in ("/monailabel/info/", "/labelstudio/health"):
        assert service.client.get(path).status_code == 404
    documents = [one.client.get("/openapi.json").json() for one in (service, monailabel)]
    assert documents[0] == documents[1]


def test_the_adapters_stay_small() -> None:
    """All of them together, with their words and blank lines."""
    folders = (ROOT / "service/lungseg/integrations", ROOT / "integrations")
    files = [path for folder in folders for path in folder.rglob("*.*") if path.suffix != ".pyc"]
    files += [ROOT / "docker/orthanc/lungs.py", ROOT / "service/lungseg/formats/parquet.py"]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) < MOST_LINES
