"""Synthetic series as they meet a reader: every orientation, and every way to be no plain stack.

Each shows the same small chest with a bead at a known point of the patient. The truth is drawn
from the geometry that is written into the headers; nothing of the product takes part in it.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

SLICES, ROWS, COLUMNS = 30, 40, 48
STEP_MM, SPACING_MM = 5.0, (3.0, 2.5)
AIR_HU, TISSUE_HU, LUNG_HU, BEAD_HU = -1000, 40, -850, 1500
BEAD = (19, 12, 30)
"""(slice, row, column) in the order in which the series was made."""
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
AXIAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
"""Row and column direction; the normal runs to the head."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Slices in the order in which they were made, and where they lie."""

    hu: np.ndarray
    """int16, shape (Z, Y, X)."""
    positions: np.ndarray
    """Patient mm of each first pixel, shape (Z, 3)."""
    row: np.ndarray
    column: np.ndarray

    @property
    def bead_mm(self) -> np.ndarray:
        """Where the bead is in the patient."""
        k, i, j = BEAD
        return self.positions[k] + i * SPACING_MM[0] * self.column + j * SPACING_MM[1] * self.row


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What a client sends, and what is true of it."""

    files: Sequence[bytes]
    bead_mm: np.ndarray
    slices: int = SLICES
    """Of the volume that should come back."""
    notes: frozenset[str] = frozenset()
    """Codes of its geometry."""
    dropped: dict[str, int] = field(default_factory=dict)
    series: int = 1
    """Candidates that the answer lists."""


def chest_hu(slices: int = SLICES) -> np.ndarray:
    """A body with two lungs of different size and one bead, int16."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    body = ((y - 19.5) / 17) ** 2 + ((x - 23.5) / 22) ** 2 < 1
    right = ((y - 19) / 11) ** 2 + ((x - 14) / 8) ** 2 < 1
    left = ((y - 20) / 9) ** 2 + ((x - 34) / 7) ** 2 < 1
    plane = np.where(body, TISSUE_HU, AIR_HU)
    plane = np.where(right | left, LUNG_HU, plane)
    hu = np.repeat(plane[None].astype(np.int16), slices, axis=0)
    hu[BEAD] = BEAD_HU
    return hu


def stack(
    directions: tuple[Sequence[float], Sequence[float]] = AXIAL,
    *,
    steps_mm: Sequence[float] | None = None,
    step_direction: Sequence[float] | None = None,
) -> Stack:
    """A series of given cosines, steps along the normal (or along another direction)."""
    row, column = (np.array(one, float) for one in directions)
    along = np.cross(row, column) if step_direction is None else np.array(step_direction, float)
    steps = [STEP_MM] * (SLICES - 1) if steps_mm is None else steps_mm
    distances = np.concatenate([[0.0], np.cumsum(steps)])
    origin = np.array([-61.25, 33.5, -410.75])
    return Stack(
        hu=chest_hu(), positions=origin + distances[:, None] * along, row=row, column=column
    )


def instance(given: Stack, k: int, slope: float = 1.0, **attributes: object) -> Dataset:
    """One slice as a CT image; None leaves an attribute out."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = uid.CTImageStorage
    stored = np.rint((given.hu[k] + 1024) / slope).astype("<u2")
    content: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": uid.CTImageStorage,
        "SOPInstanceUID": f"1.2.3.4.{k + 1}",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "FrameOfReferenceUID": "1.2.3.5",
        "Modality": "CT",
        "Manufacturer": "phantom works",
        "PatientName": "Phantom^Synthetic",
        "PatientID": "PHANTOM",
        "ConvolutionKernel": "SOFT",
        "KVP": "120",
        "SliceThickness": "6.5",  # never the distance between slices
        "InstanceNumber": str((k * 17) % 97 + 1),  # means nothing
        "SliceLocation": "0",
        "PatientPosition": "HFS",
        "ImagePositionPatient": [f"{value:.6f}" for value in given.positions[k]],
        "ImageOrientationPatient": [f"{value:.8f}" for value in (*given.row, *given.column)],
        "PixelSpacing": list(SPACING_MM),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": stored.shape[0],
        "Columns": stored.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleIntercept": "-1024",
        "RescaleSlope": f"{slope:g}",
        "PixelData": stored.tobytes(),
    }
    dataset = Dataset()
    dataset.file_meta = meta
    for keyword, value in (content | attributes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def saved(dataset: Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def instances(given: Stack, keep: Sequence[int] | None = None, **attributes: object) -> list[bytes]:
    """The slices' files in no useful order."""
    kept = range(len(given.hu)) if keep is None else keep
    return shuffled([saved(instance(given, k, **attributes)) for k in kept])


def shuffled(files: Sequence[bytes]) -> list[bytes]:
    return [files[k] for k in np.random.default_rng(7).permutation(len(files))]


def enhanced(given: Stack) -> bytes:
    """One multi-frame object, frames in no order, each with a slope of its own."""
    order = np.random.default_rng(3).permutation(len(given.hu))
    slopes = [0.5 if k % 2 else 1.0 for k in order]
    frames = [instance(given, k, slope) for k, slope in zip(order, slopes, strict=True)]
    whole = instance(given, 0, SOPClassUID=ENHANCED_CT, SOPInstanceUID="1.2.3.4.1000")
    whole.PixelData = b"".join(frame.PixelData for frame in frames)
    whole.NumberOfFrames = len(frames)
    whole.SharedFunctionalGroupsSequence = [
        grouped(frames[0], PixelMeasuresSequence=("PixelSpacing", "SliceThickness"))
    ]
    whole.PerFrameFunctionalGroupsSequence = [
        grouped(
            frame,
            PlanePositionSequence=("ImagePositionPatient",),
            PlaneOrientationSequence=("ImageOrientationPatient",),
            PixelValueTransformationSequence=("RescaleSlope", "RescaleIntercept"),
        )
        for frame in frames
    ]
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(whole, keyword)
    for keyword in ("RescaleSlope", "RescaleIntercept", "SliceThickness", "InstanceNumber"):
        delattr(whole, keyword)
    return saved(whole)


def grouped(frame: Dataset, **macros: Sequence[str]) -> Dataset:
    """A functional group with what a frame's own header says."""
    group = Dataset()
    for macro, keywords in macros.items():
        item = Dataset()
        for keyword in keywords:
            item[keyword] = frame[keyword]
        setattr(group, macro, [item])
    return group


def _sent(given: Stack, **others: object) -> Sent:
    return Sent(files=instances(given), bead_mm=given.bead_mm, **others)  # type: ignore[arg-type]


def _tilted(degrees: float) -> Sent:
    """The gantry leans: slices are moved straight along the table all the same."""
    angle = np.deg2rad(degrees)
    directions = ((1.0, 0.0, 0.0), (0.0, float(np.cos(angle)), float(-np.sin(angle))))
    return _sent(
        stack(directions, step_direction=(0.0, 0.0, 1.0)), notes=frozenset({"gantry_tilt"})
    )


def _missing(*lacking: int) -> Sent:
    given = stack()
    kept = [k for k in range(SLICES) if k not in lacking]
    return Sent(
        files=instances(given, kept),
        bead_mm=given.bead_mm,
        slices=len(kept),
        notes=frozenset({"missing_slices"}),
    )


def _twice(**attributes: object) -> Sent:
    given = stack()
    files = [*instances(given), saved(instance(given, 5, **attributes))]
    return Sent(
        files=shuffled(files),
        bead_mm=given.bead_mm,
        notes=frozenset({"duplicate_slices"}),
        dropped={"duplicate": 1},
    )


def _phases(**attributes: object) -> Sent:
    """Two volumes at one place, the second without the lungs' air."""
    given = stack()
    later = Stack(
        hu=np.maximum(given.hu, TISSUE_HU),
        positions=given.positions,
        row=given.row,
        column=given.column,
    )
    again = [
        saved(instance(later, k, SOPInstanceUID=f"1.2.3.4.{k + 500}", **attributes))
        for k in range(SLICES)
    ]
    files = [*instances(given, AcquisitionNumber="1"), *again]
    return Sent(files=shuffled(files), bead_mm=given.bead_mm)


def _two_series() -> Sent:
    given = stack()
    other = instances(stack(), range(18), SeriesInstanceUID="1.2.3.9", ConvolutionKernel="SHARP")
    return Sent(files=shuffled([*instances(given), *other]), bead_mm=given.bead_mm, series=2)


def _localizer() -> Sent:
    given = stack()
    scout = instance(
        stack(((1, 0, 0), (0, 0, -1))),
        3,
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        SOPInstanceUID="1.2.3.4.700",
    )
    return Sent(
        files=shuffled([*instances(given), saved(scout)]),
        bead_mm=given.bead_mm,
        dropped={"localizer": 1},
    )


def _odd_size() -> Sent:
    """One slice of another matrix in the place of its own."""
    given = stack()
    odd = instance(given, 8, Rows=20, Columns=24, PixelData=bytes(20 * 24 * 2))
    kept = [k for k in range(SLICES) if k != 8]
    return Sent(
        files=shuffled([*instances(given, kept), saved(odd)]),
        bead_mm=given.bead_mm,
        slices=SLICES - 1,
        notes=frozenset({"missing_slices"}),
        series=2,
    )


def _frames_of_reference() -> Sent:
    """As a de-identified archive has them: a frame of reference for each slice."""
    given = stack()
    files = [
        saved(instance(given, k, FrameOfReferenceUID=f"1.2.3.5.{k + 1}")) for k in range(SLICES)
    ]
    return Sent(files=shuffled(files), bead_mm=given.bead_mm)


def _slopes() -> Sent:
    given = stack()
    files = [saved(instance(given, k, 0.5 if k % 3 else 1.0)) for k in range(SLICES)]
    return Sent(files=shuffled(files), bead_mm=given.bead_mm)


def _jitter(positions_mm: float, cosines: float) -> Sent:
    given = stack()
    random = np.random.default_rng(5)
    files: list[bytes] = []
    for k in range(SLICES):
        place = given.positions[k] + random.uniform(-positions_mm, positions_mm, 3)
        towards = np.array([*given.row, *given.column]) + random.uniform(-cosines, cosines, 6)
        files.append(
            saved(
                instance(
                    given,
                    k,
                    ImagePositionPatient=[f"{value:.6f}" for value in place],
                    ImageOrientationPatient=[f"{value:.8f}" for value in towards],
                )
            )
        )
    return Sent(files=shuffled(files), bead_mm=given.bead_mm)


def _one_slice() -> Sent:
    given = stack()
    return Sent(
        files=instances(given, [BEAD[0]]),
        bead_mm=given.bead_mm,
        slices=1,
        notes=frozenset({"single_slice"}),
    )


def _mixed_spacing() -> Sent:
    given = stack(steps_mm=[5.0] * 15 + [7.5] * (SLICES - 16))
    return _sent(given, notes=frozenset({"non_uniform_spacing"}))


def _enhanced() -> Sent:
    given = stack()
    return Sent(files=[enhanced(given)], bead_mm=given.bead_mm)


def _turned(degrees: float, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The axial directions turned about a patient axis."""
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    turn = np.eye(3)
    a, b = [one for one in range(3) if one != axis]
    turn[a, a], turn[a, b], turn[b, a], turn[b, b] = cosine, -sine, sine, cosine
    return turn @ np.array(AXIAL[0]), turn @ np.array(AXIAL[1])


def _oblique() -> Sent:
    row, column = _turned(20, 0)
    sine, cosine = np.sin(np.deg2rad(10)), np.cos(np.deg2rad(10))
    turn = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    return _sent(stack((turn @ row, turn @ column)))


SERIES: dict[str, Callable[[], Sent]] = {
    "axial": lambda: _sent(stack()),
    "slices from head to feet": lambda: _sent(stack(step_direction=(0, 0, -1))),
    "feet first": lambda: _sent(stack(((-1, 0, 0), (0, 1, 0)))),
    "prone": lambda: _sent(stack(((-1, 0, 0), (0, -1, 0)))),
    "decubitus": lambda: _sent(stack(((0, 1, 0), (-1, 0, 0)))),
    "coronal": lambda: _sent(stack(((1, 0, 0), (0, 0, -1)))),
    "sagittal": lambda: _sent(stack(((0, 1, 0), (0, 0, -1)))),
    "oblique": _oblique,
    "gantry tilt of 2 degrees": lambda: _tilted(2),
    "gantry tilt of 15 degrees": lambda: _tilted(15),
    "one slice missing": lambda: _missing(11),
    "ten slices missing": lambda: _missing(3, *range(5, 9), *range(22, 27)),
    "one slice twice": _twice,
    "one slice twice under two names": lambda: _twice(SOPInstanceUID="1.2.3.4.900"),
    "two phases": lambda: _phases(AcquisitionNumber="2"),
    "two phases that nothing tells apart": lambda: _phases(AcquisitionNumber="1"),
    "two series": _two_series,
    "a localizer among them": _localizer,
    "mixed spacing": _mixed_spacing,
    "slopes that differ": _slopes,
    "jitter of positions": lambda: _jitter(0.04, 0.0),
    "jitter of cosines": lambda: _jitter(0.0, 1e-5),
    "a frame of reference for each slice": _frames_of_reference,
    "one slice": _one_slice,
    "one slice of another size": _odd_size,
    "enhanced, a slope per frame": _enhanced,
}
"""What is sent, by name."""
REFUSED = ("two phases", "two phases that nothing tells apart")
"""Those that are no volume before somebody says which is meant."""


@cache
def sent(name: str) -> Sent:
    """A series by its name, made once."""
    return SERIES[name]()
