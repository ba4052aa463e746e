"""The settings file: archives by their names, and where the state of their series is kept."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lungseg.calling import check_url
from lungseg.cli.errors import UsageError
from lungseg.core.errors import InvalidParameter
from lungseg.query import reason


class Root(BaseModel):
    """An archive; ``docs/dicomweb.md`` says what its settings mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    url: str
    ca: Path | None = None
    token_file: Path | None = None
    read: bool = True
    write: bool = False
    series: dict[str, str] = {"Modality": "CT"}
    max_bytes: int = Field(default=2 << 30, ge=1)
    timeout_s: float = Field(default=60, gt=0)
    deadline_s: float = Field(default=900, gt=0)
    pause_s: float = Field(default=15, ge=0)
    poll_s: float = Field(default=60, ge=0)

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        try:
            check_url("" if "@" in url else url)
        except InvalidParameter:
            raise ValueError("expected http[s]://host/path, with neither user nor query") from None
        return url


class Roots(BaseModel):
    """All that the file says."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    state: Path
    roots: dict[str, Root]


def read_roots(file: Path) -> Roots:
    """Reads the settings file.

    Raises:
        UsageError: something in it is wrong; values are not quoted.
        OSError: it cannot be read.
    """
    try:
        return Roots.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        places = [(".".join(map(str, item["loc"])), reason(item)) for item in error.errors()]
        raise UsageError(*(f"{file}: {place}: {said}" for place, said in places)) from None
    except ValueError:
        raise UsageError(f"{file}: expected TOML, received something else") from None
