"""A synthetic chest CT slice in HU with exact lung masks: the only CT the repository holds.

It is anatomy for tests, examples and golden outputs, not for training a model that meets
patients. Geometry and noise follow from the seed alone.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

AIR_HU, LUNG_HU, FAT_HU, MUSCLE_HU, HEART_HU, BONE_HU = -1000, -860, -90, 50, 45, 450
"""Typical attenuation of the tissues drawn."""
NOISE_HU = 18.0
"""Standard deviation of the noise: a routine dose at 1 mm slices."""
REFERENCE_FIELD_MM = 358.4
"""Field of view that the anatomy is drawn for: 512 pixels of 0.7 mm."""
ROUNDNESS = 2.6
"""Exponent of the superellipses that body and lungs are: 2 is an ellipse, more is boxier."""
PICTURE_WINDOW_HU = (-1000.0, 400.0)
"""Black and white of its 8-bit pictures."""

Plane = NDArray[np.float32]
Region = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """One axial slice as radiologists look at it: the patient's right is at the picture's left.

    Attributes:
        hu: float32, shape (Y, X).
        right: the patient's right lung, bool, shape (Y, X); airways are not lung.
        left: the patient's left lung.
        spacing_mm: (row, column) spacing.
    """

    hu: Plane
    right: Region
    left: Region
    spacing_mm: tuple[float, float]

    @property
    def lungs(self) -> Region:
        """Both lungs, bool, shape (Y, X)."""
        return self.right | self.left


def make_phantom(
    size: tuple[int, int] = (512, 512),
    *,
    seed: int = 0,
    spacing_mm: tuple[float, float] | None = None,
    level: float = 0.5,
) -> Phantom:
    """Draws a chest slice.

    Args:
        size: (height, width) in pixels.
        seed: patient and noise.
        spacing_mm: (row, column) spacing; by default one that shows the whole chest.
        level: 0 at the apices, 1 at the bases; 0.5 is mid-chest.

    Returns:
        The slice with its exact masks.
    """
    if spacing_mm is None:
        spacing_mm = (REFERENCE_FIELD_MM / size[0], REFERENCE_FIELD_MM / size[1])
    random = np.random.default_rng(seed)
    y = ((np.arange(size[0]) + 0.5) - size[0] / 2)[:, None] * spacing_mm[0]
    x = ((np.arange(size[1]) + 0.5) - size[1] / 2)[None, :] * spacing_mm[1]
    build = random.uniform(0.92, 1.06)
    extent = np.sin(np.pi * (0.15 + 0.7 * np.clip(level, 0.0, 1.0))) ** 0.7
    body = _ellipse(y, x, (2, 0), (105 * build, 158 * build))
    wall = _ellipse(y, x, (2, 0), (92 * build, 143 * build))
    hu = np.full(size, AIR_HU, np.float32)
    hu[_ellipse(y, x, (135, 0), (14, 190)) & ~_ellipse(y, x, (130, 0), (12, 188))] = -600
    hu[body] = FAT_HU
    hu[wall] = MUSCLE_HU
    right = _ellipse(y, x, (4, -68 * build), (72 * build * extent, 54 * build * extent), tilt=0.16)
    left = _ellipse(y, x, (8, 70 * build), (68 * build * extent, 47 * build * extent), tilt=-0.18)
    heart_size = 0.25 + 0.75 * np.clip((level - 0.2) / 0.5, 0.0, 1.0)
    heart = _ellipse(y, x, (-14, 22 * build), (42 * heart_size, 48 * heart_size), power=2.0)
    spine = _ellipse(y, x, (62 * build, 0), (17, 20), power=2.0)
    mediastinum = np.abs(x) < 11 + 5 * np.cos(y / 30)
    right &= wall & ~heart & ~spine & ~mediastinum
    left &= wall & ~heart & ~spine & ~mediastinum
    hu[heart] = HEART_HU
    hu[spine] = BONE_HU
    _ribs(hu, y, x, build, body & ~right & ~left)
    _lung_tissue(hu, y, x, right | left, random)
    airways = _airways(y, x, level)
    hu[airways] = AIR_HU + 20
    right &= ~airways
    left &= ~airways
    hu += random.normal(0.0, NOISE_HU, size).astype(np.float32)
    return Phantom(
        hu=np.clip(np.rint(hu), -1024, 3071).astype(np.float32),
        right=right,
        left=left,
        spacing_mm=spacing_mm,
    )


def picture(phantom: Phantom) -> NDArray[np.uint8]:
    """The slice as an 8-bit grey picture, shape (Y, X), through ``PICTURE_WINDOW_HU``."""
    low, high = PICTURE_WINDOW_HU
    grey = (phantom.hu - low) * (255.0 / (high - low))
    return np.rint(np.clip(grey, 0, 255)).astype(np.uint8)


def write_png(phantom: Phantom, path: Path) -> None:
    """Writes the slice as an 8-bit grey PNG."""
    from PIL import Image

    Image.fromarray(picture(phantom)).save(path, format="PNG")


def write_dicom(phantom: Phantom, path: Path, **attributes: object) -> None:
    """Writes the slice as an uncompressed DICOM CT image, see ``dicom_bytes``."""
    path.write_bytes(dicom_bytes(phantom, **attributes))


def dicom_bytes(phantom: Phantom, **attributes: object) -> bytes:
    """The slice as a DICOM CT image (PS3.3 A.3), 12 bits unsigned, intercept −1024.

    Args:
        phantom: the slice.
        **attributes: DICOM keywords to set or, with None, to leave out.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    entropy = [repr(phantom.hu[:, phantom.hu.shape[1] // 2].tobytes())]
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[*entropy, "instance"])
    dataset = Dataset()
    dataset.file_meta = meta
    stored = (phantom.hu + 1024).astype("<u2")
    rows, columns = phantom.hu.shape
    content: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyDate": "20260101",
        "StudyTime": "120000",
        "AccessionNumber": "",
        "Modality": "CT",
        "Manufacturer": "lungseg phantom",
        "ReferringPhysicianName": "",
        "PatientName": "Phantom^Synthetic",
        "PatientID": "PHANTOM",
        "PatientBirthDate": "",
        "PatientSex": "O",
        "SliceThickness": "1.0",
        "PatientPosition": "HFS",
        "StudyInstanceUID": generate_uid(entropy_srcs=[*entropy, "study"]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=[*entropy, "series"]),
        "StudyID": "1",
        "SeriesNumber": "1",
        "InstanceNumber": "1",
        "ImagePositionPatient": [-175.0, -175.0, 0.0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "FrameOfReferenceUID": generate_uid(entropy_srcs=[*entropy, "frame"]),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "PixelSpacing": list(phantom.spacing_mm),
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "RescaleType": "HU",
        "PixelData": stored.tobytes(),
    }
    for keyword, value in (content | attributes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _ellipse(
    y: NDArray[np.floating],
    x: NDArray[np.floating],
    centre_mm: tuple[float, float],
    radii_mm: tuple[float, float],
    *,
    tilt: float = 0.0,
    power: float = ROUNDNESS,
) -> Region:
    """A filled superellipse, tilted by an angle in radians."""
    dy, dx = y - centre_mm[0], x - centre_mm[1]
    v = np.cos(tilt) * dy + np.sin(tilt) * dx
    u = -np.sin(tilt) * dy + np.cos(tilt) * dx
    return np.abs(v / radii_mm[0]) ** power + np.abs(u / radii_mm[1]) ** power <= 1


def _ribs(
    hu: Plane, y: NDArray[np.floating], x: NDArray[np.floating], build: float, room: Region
) -> None:
    """Draws a ring of rib sections and the sternum into the chest wall."""
    for angle in np.linspace(0.25, 2 * np.pi - 0.25, 14):
        centre = (2 - np.cos(angle) * 97 * build, np.sin(angle) * 149 * build)
        rib = _ellipse(y, x, centre, (5, 12), tilt=float(np.sin(2 * angle)) * 0.7, power=2.0)
        hu[rib & room] = BONE_HU
    hu[_ellipse(y, x, (-92 * build, 0), (6, 22), power=2.0) & room] = BONE_HU - 150


def _lung_tissue(
    hu: Plane,
    y: NDArray[np.floating],
    x: NDArray[np.floating],
    lungs: Region,
    random: np.random.Generator,
) -> None:
    """Fills the lungs with parenchyma that grows denser to the back, and with vessels."""
    parenchyma = np.broadcast_to(LUNG_HU + 0.5 * y, hu.shape)
    hu[lungs] = parenchyma[lungs]
    for _ in range(34):
        side = random.choice((-1.0, 1.0))
        centre = (random.uniform(-60, 60), side * random.uniform(22, 115))
        radius = random.uniform(1.0, 3.6)
        shape = (radius, radius * random.uniform(1.0, 3.0))
        vessel = _ellipse(y, x, centre, shape, tilt=random.uniform(-1.5, 1.5), power=2.0)
        hu[vessel & lungs] = MUSCLE_HU - 10


def _airways(y: NDArray[np.floating], x: NDArray[np.floating], level: float) -> Region:
    """The trachea above the carina (level 0.4), the main bronchi below."""
    if level < 0.4:
        return _ellipse(y, x, (2, 0), (9, 8), power=2.0)
    return _ellipse(y, x, (16, -15), (6, 7), power=2.0) | _ellipse(
        y, x, (18, 14), (5, 6), power=2.0
    )
