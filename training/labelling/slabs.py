"""Thick slices with their masks, averaged from thin neighbours: what many routine scans hold."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from training.labelling.masks import IGNORE, LUNG, NOT_LUNG, SliceMask
from training.labelling.stacks import Slice, Stack

MAJORITY = 0.5
"""The share of a slab's thickness that decides what a pixel of it is."""
KEPT = (
    "PatientID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "PatientPosition",
    "ImageOrientationPatient",
    "PixelSpacing",
)
"""What a slab has of the file of its middle slice: whose it is, and how it lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slab:
    """Neighbouring slices as one.

    Attributes:
        slices: the slices, in the stack's order.
        thickness_mm: of all of them.
        hu: their mean, int16, shape (Y, X).
        mask: what most of the thickness is; where ignored slices could turn it, ``IGNORE``.
        airway: where most of the thickness is trachea or main bronchi, bool, shape (Y, X).
    """

    slices: tuple[Slice, ...]
    thickness_mm: float
    hu: NDArray[np.int16]
    mask: NDArray[np.uint8]
    airway: NDArray[np.bool_]

    @property
    def middle(self) -> Slice:
        """The slice that the slab is named and placed after."""
        return self.slices[len(self.slices) // 2]

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.middle.name}-{self.thickness_mm:.0f}mm"


def slabs(
    stack: Stack, results: Sequence[SliceMask], thicknesses_mm: Sequence[float]
) -> Iterator[Slab]:
    """Averages a volume's slices, for each thickness once; what is left at the end is left out.

    Args:
        stack: the slices.
        results: their masks, in the same order.
        thicknesses_mm: above 0; the nearest that whole slices make, those that round to the same
            millimetre once, and none where that is one slice or more than there are.
    """
    step_mm = stack.spacing_mm[0]
    most = len(stack.slices) + 1
    counts: dict[int, int] = {}
    for thickness_mm in thicknesses_mm:
        count = round(min(thickness_mm / step_mm, most))
        if 2 <= count < most:
            counts.setdefault(round(count * step_mm), count)
    for count in counts.values():
        yield from _slabs_of(stack, results, count)


def _slabs_of(stack: Stack, results: Sequence[SliceMask], count: int) -> Iterator[Slab]:
    for start in range(0, len(stack.slices) - count + 1, count):
        part = slice(start, start + count)
        masks = np.stack([result.mask for result in results[part]])
        lung, ignored = (masks == LUNG).mean(axis=0), (masks == IGNORE).mean(axis=0)
        mask = np.where(lung + ignored >= MAJORITY, IGNORE, NOT_LUNG)
        airway = np.stack([result.airway for result in results[part]]).mean(axis=0) >= MAJORITY
        yield Slab(
            slices=stack.slices[part],
            thickness_mm=count * stack.spacing_mm[0],
            hu=np.rint(stack.hu[part].mean(axis=0)).astype(np.int16),
            mask=np.where(lung >= MAJORITY, LUNG, mask).astype(np.uint8),
            airway=airway & (lung < MAJORITY),
        )


def slab_dicom(slab: Slab) -> bytes:
    """The slab as a derived CT image (DICOM PS3.3 A.3) in HU, without padding values."""
    source = pydicom.dcmread(slab.middle.path, force=True, specific_tags=list(KEPT))
    of_series = [repr(slab.middle.group), slab.middle.patient, str(len(slab.slices))]
    of_slab = [*of_series, slab.name, slab.hu.tobytes().hex()]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=of_slab)
    content: dict[str, object] = {name: source[name].value for name in KEPT if name in source}
    content |= {
        "SpecificCharacterSet": "ISO_IR 192",  # UTF-8 holds what any source's character set does
        "ImageType": ["DERIVED", "PRIMARY", "AXIAL"],
        "DerivationDescription": f"mean of {len(slab.slices)} slices",
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": generate_uid(entropy_srcs=of_series),
        "Modality": "CT",
        "SliceThickness": f"{slab.thickness_mm:.3f}",
        "ImagePositionPatient": _center(slab.slices),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": slab.hu.shape[0],
        "Columns": slab.hu.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleIntercept": "0",
        "RescaleSlope": "1",
        "RescaleType": "HU",
        "PixelData": slab.hu.astype("<i2").tobytes(),
    }
    dataset = Dataset()
    dataset.file_meta = meta
    for keyword, value in content.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _center(slices: Sequence[Slice]) -> list[float]:
    """The mean of the slices' positions."""
    tag = "ImagePositionPatient"
    headers = [pydicom.dcmread(item.path, force=True, specific_tags=[tag]) for item in slices]
    positions = [[float(value) for value in header[tag].value] for header in headers]
    return np.mean(positions, axis=0).round(4).tolist()
