"""Lung segmentation of chest CT: a library, a client and a server. Research use only.

>>> import lungseg                                            # doctest: +SKIP
>>> lungseg.load().segment("slice.dcm").statistics["area_mm2"]
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lungseg.calling import ServiceError
    from lungseg.client import Client
    from lungseg.core.errors import LungsegError
    from lungseg.library import Segmenter, load

    __version__: str

__all__ = ["Client", "LungsegError", "Segmenter", "ServiceError", "__version__", "load"]
_HOMES = {
    "Client": "client",
    "LungsegError": "core.errors",
    "Segmenter": "library",
    "ServiceError": "calling",
    "load": "library",
}


def __getattr__(name: str) -> Any:
    """Loads what is asked for, and not before: neither ONNX Runtime nor FastAPI comes unasked."""
    if name == "__version__":
        try:
            return metadata.version("lungseg")
        except metadata.PackageNotFoundError:  # run from a checkout that is not installed
            return "0+unknown"
    if name in _HOMES:
        return getattr(import_module(f"lungseg.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'lungseg' has no attribute {name!r}")
