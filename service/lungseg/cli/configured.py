"""Settings as the command line shows them: what is wrong is named as its caller wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lungseg.cli.errors import UsageError

if TYPE_CHECKING:
    from lungseg.settings import Settings

NO_KEYS: dict[str, Any] = {"api_keys": (), "api_keys_file": None}
"""Settings that only a server needs: nobody calls this process, whatever they say."""


def configured(given: dict[str, Any]) -> Settings:
    """The settings, with options of the command line before variables and the file ``.env``.

    Args:
        given: settings by name, of options that were used.

    Raises:
        UsageError: one is wrong.
    """
    from pydantic import ValidationError

    from lungseg.settings import PREFIX, Settings, expectation

    try:
        return Settings(**given)
    except ValidationError as error:
        sentences: list[str] = []
        for item in error.errors():
            name = str(item["loc"][0])
            named = option(name) if name in given else f"{PREFIX}{name.upper()}"
            # No value is quoted: it may be a key that stands in the wrong variable.
            reason = f"expected {expectation(name)}, received another value".replace("`", "")
            said = item.get("ctx", {}).get("error", reason)
            sentences.append(f"{named}: {said}")
        raise UsageError(*sentences) from None
    except UnicodeDecodeError:
        raise UsageError("expected text in the file .env, received other bytes") from None
    except ValueError as error:
        raise UsageError(str(error)) from None


def option(name: str) -> str:
    """The option of a setting or parameter."""
    return f"--{name.replace('_', '-')}"
