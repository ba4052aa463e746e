"""Attributes of a parsed DICOM file: those of the image itself and those of functional groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pydicom
from pydicom import config
from pydicom.dataset import Dataset, FileDataset

from lungseg.formats.pieces import CountedStream


def parse(content: bytes, attributes: list[str] | None = None) -> FileDataset:
    """Parses a file, all of it or some attributes only, without checking values.

    Checks would warn with the offending text, which may name a patient.
    """
    config.settings.reading_validation_mode = config.IGNORE
    return pydicom.dcmread(CountedStream(content), force=True, specific_tags=attributes)


def functional(dataset: FileDataset, macro: str, keyword: str) -> Any:
    """An attribute of the image, else of its only frame, else one shared by all frames."""
    places: list[Dataset] = [dataset]
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in (dataset.get(groups) or ())[:1]:
            places += (group.get(macro) or ())[:1]
    try:
        return next((place.get(keyword) for place in places if keyword in place), None)
    except (TypeError, ValueError):  # not a number where one belongs: unknown
        return None


def floats(dataset: FileDataset, macro: str, keyword: str, count: int) -> list[float] | None:
    """``count`` finite numbers of an attribute that ``functional`` finds, None if it has others."""
    try:
        numbers = [float(str(item)) for item in sequence_of(functional(dataset, macro, keyword))]
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def sequence_of(value: object) -> Sequence[object]:
    """The values of an attribute: none, its only one, or all."""
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (value,)
    return value
