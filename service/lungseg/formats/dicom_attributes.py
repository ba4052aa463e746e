"""Attributes of a parsed DICOM file: those of the image itself and those of functional groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import pydicom
from pydicom import config
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from lungseg.formats.pieces import MAX_READS, CountedStream

PIXEL_DATA = 0x7FE00010

_DECIMAL_STRING = ("DS", None)
"""The value representation of decimal strings, which implicit transfer syntaxes do not name."""


def parse(
    content: bytes, attributes: Sequence[str] | None = None, max_reads: int = MAX_READS
) -> FileDataset:
    """Parses a file, all of it or some attributes only, without checking values.

    Checks would warn with the offending text, which may name a patient.
    """
    config.settings.reading_validation_mode = config.IGNORE
    wanted = None if attributes is None else [*attributes]
    return pydicom.dcmread(CountedStream(content, max_reads), force=True, specific_tags=wanted)


def parse_header(
    content: bytes, attributes: tuple[str, ...], max_reads: int = MAX_READS
) -> tuple[FileDataset, bool]:
    """Some attributes of what stands before the pixels, and whether there are any pixels.

    Args:
        content: a file, or its beginning.
        attributes: keywords, the same for all files of a series.
        max_reads: see ``CountedStream``.
    """
    config.settings.reading_validation_mode = config.IGNORE
    reached = False

    def at_pixels(tag: BaseTag, _kind: str | None, _length: int) -> bool:
        nonlocal reached
        number = int(tag)  # a tag compares ten times as slowly
        reached = number == PIXEL_DATA
        return number >= PIXEL_DATA

    stream, tags = CountedStream(content, max_reads), [*_tags(attributes)]
    dataset = read_partial(stream, at_pixels, force=True, specific_tags=tags)
    dataset.buffer = None  # else it would keep the content
    return dataset, reached


@cache
def _tags(keywords: tuple[str, ...]) -> tuple[BaseTag | int, ...]:
    return tuple(map(Tag, keywords))


def longest_value(dataset: Dataset) -> int:
    """Bytes of the longest attribute beside the pixels, before a value is made of them."""
    values = (dataset.get_item(tag).value for tag in {*dataset.keys()} - {PIXEL_DATA})
    return max((len(value) for value in values if isinstance(value, bytes)), default=0)


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
