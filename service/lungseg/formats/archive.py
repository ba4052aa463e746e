"""Zip archives of slices: read and written in memory, never at a path."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PureWindowsPath

from lungseg.core.errors import (
    BodyTooLarge,
    MalformedRequest,
    TooManyItems,
    UndecodableImage,
    UnsupportedMediaType,
)
from lungseg.formats.sniff import is_zip

MAX_RATIO = 200
"""Unpacked to packed bytes of a member; slices reach 20, bombs a thousand and more."""
MIN_RATIO_BYTES = 1 << 20
"""Members that unpack to less may be as dense as they like."""
MAX_ENTRIES_PER_ITEM = 16
"""Folders and hidden files are no slices, but each entry of the directory costs time and memory."""
_ENTRY_SIGNATURE = b"PK\x01\x02"
_PIECE_BYTES = 1 << 20
"""Looked through at a time: meanwhile no other thread gets its turn."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_UTF_8 = 0x800
_PERMISSIONS = 0o100644
"""A plain file that all may read and its owner may write, in the high half of the attributes."""
_PACKED = (".gz", ".png", ".npz")
"""Endings of files that are compressed already: once more costs time, and saves nothing."""
_FOLDERS_OF_OTHERS = ("__MACOSX",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file of a batch."""

    filename: str
    """What the client calls it: repeated in answers, never opened."""
    size_bytes: int
    """How many bytes its content has at most."""
    read: Callable[[], bytes]
    """Gives the content; raises a ``LungsegError`` where this one can't be had."""
    read_head: Callable[[int], bytes] | None = None
    """Gives so many bytes of it, where that costs less than all."""

    def head(self, size: int) -> bytes:
        """The beginning of the content, ``size`` bytes at most."""
        return self.read_head(size) if self.read_head else self.read()[:size]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """What an archive may hold: members, unpacked bytes of one and of all."""

    max_items: int
    max_item_bytes: int
    max_total_bytes: int


def in_memory(content: bytes | memoryview, filename: str = "") -> Member:
    """A file whose content is here already; a part of something larger is copied when read."""
    return Member(
        filename=filename,
        size_bytes=len(content),
        read=lambda: bytes(content),
        read_head=lambda size: bytes(content[:size]),
    )


def open_archive(content: bytes, limits: ArchiveLimits, *, hidden: bool = False) -> list[Member]:
    """Lists the files of a zip archive, having checked what its directory announces.

    Folders are passed over, and hidden files and the extra folders of macOS unless ``hidden``.

    Raises:
        MalformedRequest: it is damaged, encrypted, or has names that point elsewhere.
        TooManyItems, BodyTooLarge: it goes beyond the limits.
    """
    entries = sum(
        content.count(_ENTRY_SIGNATURE, start, start + _PIECE_BYTES + len(_ENTRY_SIGNATURE) - 1)
        for start in range(0, len(content), _PIECE_BYTES)
    )
    if entries > MAX_ENTRIES_PER_ITEM * limits.max_items:
        raise TooManyItems(f"expected at most {limits.max_items} files, received far more entries")
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except Exception:  # noqa: BLE001 - zipfile raises many kinds on broken directories
        raise MalformedRequest("expected a zip archive, received a damaged one") from None
    listed = archive.infolist()
    for entry in listed:
        _check_name(entry.filename)
    files = [
        entry
        for entry in listed
        if not _is_folder(entry.filename) and (hidden or not is_hidden(entry.filename))
    ]
    if len(files) > limits.max_items:
        raise TooManyItems(f"expected at most {limits.max_items} files, received {len(files)}")
    _check_sizes(files, limits)
    return [
        Member(
            filename=_name_of(entry),
            size_bytes=entry.file_size,
            read=partial(_read, archive, entry),
            read_head=partial(_read_head, archive, entry),
        )
        for entry in files
    ]


def write_archive(files: Mapping[str, bytes], effort: int | None = None) -> bytes:
    """A zip archive of files by name; the same files give the same bytes.

    Args:
        files: content by name.
        effort: how hard it is tried to compress them, from 1 to 9; None = as zlib thinks best.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = _PERMISSIONS << 16  # else unpacking gives files nobody may read
            method = zipfile.ZIP_STORED if name.endswith(_PACKED) else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content, method, effort)
    return stream.getvalue()


def _name_of(entry: zipfile.ZipInfo) -> str:
    """The name; UTF-8 is meant where it reads as such, though macOS does not say that it is."""
    if entry.flag_bits & _UTF_8:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.filename


def _check_name(name: str) -> None:
    path = PureWindowsPath(name)  # takes either slash for a separator, and knows drives
    if path.anchor or ".." in path.parts or "\0" in name or not name:
        raise MalformedRequest("expected plain relative file names in the zip archive")


def _is_folder(name: str) -> bool:
    """Among them the one called ``.``."""
    return not PureWindowsPath(name).parts or name.endswith(("/", "\\"))


def is_hidden(name: str) -> bool:
    """Whether a file is one that systems hide, or a companion that macOS adds."""
    parts = PureWindowsPath(name).parts
    return bool(parts) and (parts[0] in _FOLDERS_OF_OTHERS or parts[-1].startswith("."))


def _check_sizes(files: Sequence[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    if sum(entry.file_size for entry in files) > limits.max_total_bytes:
        raise BodyTooLarge(f"expected at most {limits.max_total_bytes} unpacked bytes in all")
    for entry in files:
        if entry.flag_bits & _ENCRYPTED:
            raise MalformedRequest("expected an archive that is not encrypted")
        if entry.file_size > limits.max_item_bytes:
            raise BodyTooLarge(f"expected at most {limits.max_item_bytes} unpacked bytes a file")
        dense = entry.file_size > MAX_RATIO * max(1, entry.compress_size)
        if dense and entry.file_size > MIN_RATIO_BYTES:
            raise BodyTooLarge(f"expected files packed at most {MAX_RATIO} to 1, received denser")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    # reads no more than the directory announced, whatever the packed data holds
    content = _read_head(archive, entry, entry.file_size)
    if is_zip(content):
        raise UnsupportedMediaType("expected a slice, received an archive within the archive")
    return content


def _read_head(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, size: int) -> bytes:
    if entry.compress_type not in _METHODS:
        raise UnsupportedMediaType("expected stored or deflated files in the zip archive")
    try:
        with archive.open(entry) as stream:
            return stream.read(min(size, entry.file_size))
    except Exception:  # noqa: BLE001 - zlib, zipfile and their like, on broken members
        raise UndecodableImage("this file of the zip archive is damaged") from None
