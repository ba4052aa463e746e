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
