"""Attributes of a parsed DICOM file: those of the image itself and those of functional groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pydicom
from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset

from lungseg.formats.pieces import CountedStream

_DECIMAL_STRING = ("DS", None)
"""The value representation of decimal strings, which implicit transfer syntaxes do not name."""


def parse(content: bytes, attributes: list[str] | None = None) -> FileDataset:
    """Parses a file, all of it or some attributes only, without checking values.

    Checks would warn with the offending text, which may name a patient.
    """
    config.settings.reading_validation_mode = config.IGNORE
    return pydicom.dcmread(CountedStream(content), force=True, specific_tags=attributes)


def functional(dataset: FileDataset, macro: str, keyword: str) -> Any:
    """An attribute of the image, else of its only frame, else one shared by all frames."""
    try:
        place = _place(dataset, macro, keyword)
        return None if place is None else place.get(keyword)
    except (TypeError, ValueError):  # not a number where one belongs: unknown
        return None


def floats(dataset: FileDataset, macro: str, keyword: str, count: int) -> list[float] | None:
    """``count`` finite numbers of an attribute that ``functional`` finds, None if it has others."""
    place = _place(dataset, macro, keyword)
    raw = None if place is None else place.get_item(keyword)
    if isinstance(raw, RawDataElement) and raw.VR in _DECIMAL_STRING and raw.value:
        # As it stands in the file: making pydicom's decimal strings takes longer than all else.
        # Like them, each is padded at its end only: elsewhere NUL is no part of a number.
        parts = raw.value.decode("latin-1").split("\\")
        texts: Sequence[object] = [part.rstrip(" \0") for part in parts]
    else:
        texts = sequence_of(functional(dataset, macro, keyword))
    try:
        numbers = [float(str(text)) for text in texts]
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _place(dataset: FileDataset, macro: str, keyword: str) -> Dataset | None:
    """The image, its only frame or what all frames share: the first that has an attribute."""
    places: list[Dataset] = [dataset]
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in (dataset.get(groups) or ())[:1]:
            places += (group.get(macro) or ())[:1]
    return next((place for place in places if keyword in place), None)


def sequence_of(value: object) -> Sequence[object]:
    """The values of an attribute: none, its only one, or all."""
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (value,)
    return value
