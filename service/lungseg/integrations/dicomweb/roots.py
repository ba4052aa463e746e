"""The settings file: archives by their names, and where the state of their series is kept."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lungseg.calling import check_url
from lungseg.cli.errors import UsageError
from lungseg.core.errors import InvalidParameter
from lungseg.query import reason


class Root(BaseModel):
    """An archive, whose whole interface lies below one URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str
    ca: Path | None = None
    """Of the authorities that may vouch for it; the system's by default."""
    token_file: Path | None = None
    """Its word is a bearer token, two are a scheme and its credentials; read at each request."""
    read: bool = True
    write: bool = False
    series: str = "Modality=CT"
    """Which series of a study are meant, as a query of QIDO-RS."""
    max_bytes: int = Field(default=2 << 30, ge=1)
    """Of a series."""
    timeout_s: float = Field(default=60, gt=0)
    """Of each wait for data."""
    deadline_s: float = Field(default=900, gt=0)
    """Of a whole answer."""
    pause_s: float = Field(default=15, ge=0)
    """Before the first retry; doubled before each further one."""
    poll_s: float = Field(default=60, ge=0)
    """From one look of a watch to the next."""

    @property
    def query(self) -> dict[str, str]:
        """``series`` as names and values."""
        return dict(parse_qsl(self.series))

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        try:
            check_url(url)
        except InvalidParameter:
            url = "@"
        if "@" in url:
            raise ValueError(
                "expected a URL such as https://pacs.example/dicom-web, without a user"
            )
        return url


class Roots(BaseModel):
    """All that the file says."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    state: Path = Path("dicomweb.sqlite")
    roots: dict[str, Root]


def read_roots(file: Path) -> Roots:
    """Reads the settings file; paths in it are relative to its folder.

    Raises:
        UsageError: something in it is wrong; values are not quoted.
        OSError: it cannot be read.
    """
    try:
        found = Roots.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        places = [(".".join(map(str, item["loc"])), reason(item)) for item in error.errors()]
        raise UsageError(*(f"{file}: {place}: {said}" for place, said in places)) from None
    except ValueError:
        raise UsageError(f"{file}: expected TOML, received something else") from None

    def beside(model: BaseModel, *names: str) -> dict[str, Any]:
        return {name: file.parent / path for name in names if (path := getattr(model, name))}

    roots = {
        name: root.model_copy(update=beside(root, "ca", "token_file"))
        for name, root in found.roots.items()
    }
    return found.model_copy(update={**beside(found, "state"), "roots": roots})
