"""The volumes that a command names: files, and the studies that folders hold."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lungseg.cli.inputs import check_names, files_below, is_no_input, named_paths, tell
from lungseg.cli.streams import standard_input
from lungseg.formats.study import HEAD_BYTES, Kind, kind_of
from lungseg.sources import VolumeSource

Group = tuple[str, str]
"""The argument of a command, or none where it names files, and a study's UID, or a folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One volume, and whatever lies beside it: where its files are, and its name for outputs."""

    name: str
    files: Sequence[Path]
    """None of them for standard input."""

    def read(self) -> VolumeSource:
        """The files, or the content of standard input."""
        return [*self.files] or standard_input().read()


def find_studies(names: Sequence[str]) -> list[Study]:
    """The volumes of a command's files and folders, in their order.

    Files of volumes are one each. DICOM files are one volume for each study, whose best series
    will be taken: below a folder in whatever folders they lie, and all that are named as files
    together. What else lies in folders is left out, with one line.

    Raises:
        UsageError: there are none, or they cannot be told apart.
    """
    found: list[Study] = []
    groups: dict[Group, list[Path]] = {}
    skipped: list[str] = []
    for name, path in named_paths(names):
        if path is None:
            found.append(Study(name="stdin", files=()))
            continue
        root = path if path.is_dir() else None
        for file in [path] if root is None else sorted(files_below(root)):
            shown = file.name if root is None else _relative(file, root)
            if root is not None and is_no_input(file, shown):
                skipped.append(shown)
                continue
            kind = _kind(file)
            if kind is not None and not kind.whole:
                group = ("" if root is None else name, kind.study or str(file.parent))
                groups.setdefault(group, []).append(file)
            elif kind is not None or root is None:
                found.append(Study(name=shown, files=[file]))
            else:
                skipped.append(shown)
    found += _studies(groups)
    tell(skipped, "volumes")
    check_names([study.name for study in found], names, "volumes")
    return found


def _kind(file: Path) -> Kind | None:
    """What a file is; one that cannot be read fails when it is, and a pipe is read but once."""
    if not file.is_file():
        return Kind(whole=True)
    try:
        with file.open("rb") as stream:
            return kind_of(stream.read(HEAD_BYTES))
    except OSError:
        return Kind(whole=True)


def _studies(groups: dict[Group, list[Path]]) -> Iterator[Study]:
    """Studies with the names of their folders, to which those of one folder add what they are."""
    named = {group: _name(group[0], files) for group, files in groups.items()}
    times = Counter((group[0], name) for group, name in named.items())
    for group, files in groups.items():
        name = named[group]
        if times[group[0], name] > 1:
            # As a digest: UIDs of patients' studies are no names for files.
            name += f"-{hashlib.sha256(group[1].encode()).hexdigest()[:8]}"
        yield Study(name=name, files=files)


def _name(argument: str, files: Sequence[Path]) -> str:
    """The file, or the innermost folder that holds all files, below what the command named."""
    common = files[0] if len(files) == 1 else Path(os.path.commonpath([f.parent for f in files]))
    if not argument:
        return common.name or common.resolve().name
    below = _relative(common, Path(argument))
    return below if below != "." else Path(argument).resolve().name or "study"


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
