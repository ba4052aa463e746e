"""What a caller names: the bytes of a file, its path, an array, or the many files of a volume."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lungseg.core.errors import MalformedRequest, UndecodableImage

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | NDArray[Any]
"""A path, the content of a file, or intensities, shape (rows, columns) or (slices, …, …)."""
VolumeSource = Source | Sequence[Source]
"""The file of a volume, a folder, or the files of a series in any order."""
FOLDERS_OF_OTHERS = ("__MACOSX",)


def content_of(source: Source) -> bytes:
    """The bytes of a source; an array becomes a file in NumPy's format.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if isinstance(source, np.ndarray):
        if isinstance(source, np.ma.MaskedArray) or source.dtype.hasobject:
            raise UndecodableImage("expected a plain array of numbers, received another kind")
        stream = io.BytesIO()
        np.save(stream, source, allow_pickle=False)
        return stream.getvalue()
    return Path(source).read_bytes()


def files_of(source: VolumeSource) -> list[Path | bytes]:
    """The files of a volume: paths as they are, all else as bytes; of folders what they hold.

    Raises:
        MalformedRequest: there are none.
        OSError: there is no such file or folder.
    """
    several = [*source] if isinstance(source, list | tuple) else [cast("Source", source)]
    found = [file for one in several for file in _files_of(one)]
    if not found:
        raise MalformedRequest("expected the files of a CT volume, received none")
    return found


def _files_of(source: Source) -> Iterator[Path | bytes]:
    if not isinstance(source, str | os.PathLike):
        yield content_of(source)
        return
    path = Path(source)
    path.stat()  # else what is not there would be an empty folder
    if path.is_dir():
        yield from (found for found in walk(path) if found.is_file())
    else:
        yield path if path.is_file() else path.read_bytes()  # a pipe can be read but once


def walk(root: Path, unreadable: list[OSError] | None = None) -> Iterator[Path]:
    """Files below a folder, and links to folders, which are not followed, but none hidden.

    Args:
        root: the folder.
        unreadable: gets the errors of folders that cannot be read.

    Raises:
        OSError: a folder cannot be read, and nobody collects errors.
    """
    heard = _raise if unreadable is None else unreadable.append
    for folder, folders, files in os.walk(root, onerror=heard):
        linked = [name for name in folders if Path(folder, name).is_symlink()]
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted([*files, *linked]):
            if not is_hidden(name):
                yield Path(folder, name)


def is_hidden(name: str) -> bool:
    """Whether systems hide files of such a name, or add them beside others."""
    return name.startswith(".") or name in FOLDERS_OF_OTHERS


def _raise(error: OSError) -> None:
    raise error
