"""Files of volumes told apart by their beginnings: whole volumes, and slices by their study."""

from __future__ import annotations

from dataclasses import dataclass

from lungseg.core.errors import LungsegError
from lungseg.formats.dicom_attributes import parse_header
from lungseg.formats.grids import is_grid
from lungseg.formats.sniff import DICOM, is_zip, sniff

HEAD_BYTES = 32 << 10
"""Of a file tells what it is; the study's UID stands far before."""
_STUDY = ("StudyInstanceUID",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a file is: a volume by itself, or else a part of a study."""

    whole: bool
    study: str = ""
    """Its StudyInstanceUID; empty where it says none."""


def kind_of(head: bytes) -> Kind | None:
    """What a file is by its first ``HEAD_BYTES``; None of what is neither DICOM nor a volume."""
    try:
        if sniff(head) == DICOM:
            return Kind(whole=False, study=_study_of(head))
        return Kind(whole=True) if is_zip(head) or is_grid(head) else None
    except LungsegError:  # packed and damaged: its reader will say so
        return Kind(whole=True)


def _study_of(head: bytes) -> str:
    try:
        header, _ = parse_header(head, _STUDY)
        return str(header.get("StudyInstanceUID") or "")
    except Exception:  # noqa: BLE001 - pydicom raises anything on broken bytes
        return ""
