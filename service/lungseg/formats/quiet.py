"""Keeps decoders from repeating what a file says: their log records and warnings quote it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

from lungseg.core.errors import LungsegError, UndecodableImage

_LIBRARIES = ("pydicom", "highdicom", "PIL")
_MODULES = "|".join(_LIBRARIES)
_SILENT = logging.CRITICAL + 1


def silence_decoders() -> None:
    """Shuts the decoders' loggers and warnings, at whatever level the rest of the service logs.

    Called before each decoding, because a log configuration or a test may have undone it.
    """
    for library in _LIBRARIES:
        logger = logging.getLogger(library)
        if logger.level != _SILENT:  # setting it would empty the caches of all loggers
            logger.setLevel(_SILENT)
    for action, _, _, module, _ in warnings.filters[:1]:
        if action == "ignore" and getattr(module, "pattern", None) == _MODULES:
            return
    warnings.filterwarnings("ignore", module=_MODULES)


@contextmanager
def refusing_damage() -> Generator[None]:
    """Whatever pydicom raises on broken bytes, and quotes of them, as one sentence without them.

    Raises:
        UndecodableImage: instead of any error that is not of the domain.
    """
    try:
        yield
    except LungsegError:
        raise
    except Exception:  # noqa: BLE001 - pydicom raises anything
        raise UndecodableImage(
            "a slice of the series is damaged, incomplete or of an unknown encoding"
        ) from None
