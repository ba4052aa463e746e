"""DICOM files that the phantom module does not write: other syntaxes, enhanced objects."""

from __future__ import annotations

import io

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate

from training.synthetic.phantom import Phantom, dicom_bytes

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
GEOMETRY = ("PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient")
HTJ2K_24_BY_16 = bytes.fromhex(
    "ff4fff5100294000000000180000001000000000000000000000001800000010000000000000000000010f0101"
    "ff50000800020000000aff52000c00020001000504044001ff5c00132088909090909090909090909090888888"
    "ff64001700014f70656e4a50482056657220302e32362e332eff90000a0000000000920001ff93c000268bf905"
    "077400c0001280ee01077400c00011c0001380277300feebbf00c23400c00012c0001540be800b7400fce58fbf"
    "0018c0775600c00013c00015e0eeeed8a7c27500f2ca93274f9ebce020f64201ecb800c0002ae00016e0244992"
    "f3f0a7a7a74278004e9d9c9c9c9c9c9c9c9c9c9cfeff1003181efd8c607bf63181ecbf00ffd9"
)
"""``numpy.arange(384).reshape(16, 24) * 7 % 4096``, written by OpenJPH."""


def parse(content: bytes) -> FileDataset:
    return pydicom.dcmread(io.BytesIO(content))


def save(dataset: FileDataset, **options: object) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, **({"enforce_file_format": True} | options))
    return stream.getvalue()


def encapsulated(content: bytes, frame: bytes, syntax: str, **attributes: object) -> bytes:
    """The file with its pixels replaced by one compressed frame."""
    dataset = parse(content)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return save(dataset)


def compressed(content: bytes, syntax: str) -> bytes:
    """The file compressed by pydicom's encoders."""
    dataset = parse(content)
    dataset.compress(uid.UID(syntax), generate_instance_uid=False)
    return save(dataset)


def uncompressed(content: bytes, syntax: str) -> bytes:
    """The file in another syntax of plain pixels."""
    dataset = parse(content)
    big = syntax == uid.ExplicitVRBigEndian
    if big:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    stream = io.BytesIO()
    little, implicit = not big, syntax == uid.ImplicitVRLittleEndian
    again = FileDataset(stream, dict(dataset), b"\0" * 128, dataset.file_meta, implicit, little)
    again.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def enhanced(phantom: Phantom, frames: int = 1, *, shared: bool = True) -> bytes:
    """An Enhanced CT image whose geometry and rescaling stand in functional groups."""
    dataset = parse(dicom_bytes(phantom))
    group = Dataset()
    for macro, keywords in (
        ("PixelMeasuresSequence", ("PixelSpacing", "SliceThickness")),
        ("PlaneOrientationSequence", ("ImageOrientationPatient",)),
        ("PlanePositionSequence", ("ImagePositionPatient",)),
        ("PixelValueTransformationSequence", ("RescaleSlope", "RescaleIntercept", "RescaleType")),
    ):
        item = Dataset()
        for keyword in keywords:
            setattr(item, keyword, dataset[keyword].value)
            delattr(dataset, keyword)
        setattr(group, macro, [item])
    empty = Dataset()
    dataset.SharedFunctionalGroupsSequence = [group if shared else empty]
    dataset.PerFrameFunctionalGroupsSequence = [empty if shared else group] * frames
    dataset.NumberOfFrames = frames
    dataset.PixelData = dataset.PixelData * frames
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.UID(ENHANCED_CT)
    return save(dataset)
