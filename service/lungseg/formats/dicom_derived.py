"""What all DICOM objects that are derived from one segmentation have in common.

UIDs and dates follow from the input: the same slices and model give the same bytes, and objects
refer to each other without having been written together.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset

from lungseg.core.errors import InvalidParameter
from lungseg.core.geometry import step_mm
from lungseg.core.types import LEFT, RIGHT, UNSIDED, LabelArray, Scan, Segmentation
from lungseg.core.volume import Volume
from lungseg.formats.dicom_attributes import parse
from lungseg.formats.dicom_deflated import inflate
from lungseg.formats.dicom_source import derivation_sources, instance_number, moment
from lungseg.formats.sniff import DICOM

if TYPE_CHECKING:
    from highdicom import AlgorithmIdentificationSequence

MANUFACTURER = "lungseg"
NAMES = {RIGHT: "Right lung", LEFT: "Left lung", UNSIDED: "Lung"}
NOT_INSTALLED = "dicom-seg is not installed here: it is the extra of that name"


def check_installed() -> None:
    """Makes sure that the extra ``dicom-seg`` is there.

    Raises:
        InvalidParameter: it is not; the sentence is ``NOT_INSTALLED``.
    """
    if find_spec("highdicom") is None:
        raise InvalidParameter(NOT_INSTALLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """What found the mask: the model's name, version and digest, and what it was told."""

    name: str
    version: str
    sha256: str
    largest_components: int | None = None
    """Of a slice; the rules of volumes are fixed."""

    def settings(self, threshold: float) -> dict[str, str]:
        """What changes masks besides the model."""
        if self.largest_components is None:
            return {"threshold": f"{threshold:g}"}
        return {"threshold": f"{threshold:g}", "largest_components": str(self.largest_components)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A segmentation and what its DICOM objects take over from their sources."""

    sources: list[Dataset]
    """Of each slice; several may be frames of one object."""
    frames: tuple[int, ...]
    """Of each slice its number among the frames of its object; none where no object has frames."""
    labels: LabelArray
    """Segment numbers, uint8, shape (slices, Y, X); 0 = no lung."""
    names: dict[int, str]
    """Of the segments, by their number."""
    algorithm: Algorithm
    settings: dict[str, str]
    series: list[str]
    """What a series of results depends on."""
    entropy: list[str]
    """What one result depends on."""
    instance_number: int
    moment: tuple[str, str]
    """Date and time of all that is written: those of now would make every answer another."""

    def uid(self, what: str) -> str:
        """A UID of one object or of a part of it."""
        return uid.generate_uid(entropy_srcs=[*self.entropy, what])

    def series_uid(self, what: str) -> str:
        """A UID that all results of one series, model and settings share."""
        return uid.generate_uid(entropy_srcs=[*self.series, what])

    def tracking_id(self, number: int) -> str:
        """What a segment is called wherever it occurs."""
        return f"{MANUFACTURER} {self.names[number]}"

    def tracking_uid(self, number: int) -> str:
        """The same as a UID."""
        return self.series_uid(self.names[number])

    def identification(self) -> AlgorithmIdentificationSequence:
        """The algorithm as DICOM describes one."""
        import highdicom
        from pydicom.sr.codedict import codes

        return highdicom.AlgorithmIdentificationSequence(
            name=self.algorithm.name,
            family=codes.DCM.ArtificialIntelligence,
            version=self.algorithm.version,
            parameters=self.settings,
        )

    def settle(self, result: Any) -> None:
        """Replaces the dates and times that highdicom took from the clock."""
        result.InstanceCreationDate, result.InstanceCreationTime = self.moment
        for equipment in result.get("ContributingEquipmentSequence", ()):
            if "ContributionDateTime" in equipment:
                equipment.ContributionDateTime = "".join(self.moment)


def derived_of_slice(
    content: bytes, scan: Scan, segmentation: Segmentation, algorithm: Algorithm
) -> Derived:
    """What is derived from one DICOM slice; see ``dicom_seg``."""
    if scan.media_type != DICOM:
        raise InvalidParameter("dicom-seg needs a DICOM slice, received another format")
    check_installed()
    given = parse(inflate(content, segmentation.labels.size))
    sources = derivation_sources([given])
    return _derived(given, sources, (), segmentation, algorithm)


def derived_of_volume(volume: Volume, segmentation: Segmentation, algorithm: Algorithm) -> Derived:
    """What is derived from a volume of DICOM slices; see ``volume_seg``."""
    check_source(volume)
    sources = derivation_sources(volume.headers, step_mm=step_mm(volume.scan))
    return _derived(volume.headers[0], sources, volume.frames, segmentation, algorithm)


def check_source(volume: Volume) -> None:
    """Makes sure that DICOM results can be made of a volume, as far as its kind says it.

    Raises:
        InvalidParameter: it is none of DICOM, or the extra ``dicom-seg`` is not there.
    """
    if not volume.headers:
        raise InvalidParameter("DICOM results need DICOM slices, received another format")
    check_installed()


def _derived(
    given: FileDataset,
    sources: list[Dataset],
    frames: tuple[int, ...],
    segmentation: Segmentation,
    algorithm: Algorithm,
) -> Derived:
    labels, names = _segments(segmentation)
    settings = algorithm.settings(segmentation.threshold)
    # One series for all slices of a series, by one model with the same settings.
    series = [sources[0].SeriesInstanceUID, algorithm.sha256, algorithm.name, algorithm.version]
    series += [*settings.values()]
    instances = sorted(source.SOPInstanceUID for source in sources)
    digest = hashlib.sha256(labels.data).hexdigest()
    return Derived(
        sources=sources,
        frames=frames,
        labels=labels,
        names=names,
        algorithm=algorithm,
        settings=settings,
        series=series,
        entropy=[*series, *instances, ",".join(map(str, frames)), digest],
        instance_number=instance_number(given) if len(labels) == 1 else 1,
        moment=moment(given),
    )


def _segments(segmentation: Segmentation) -> tuple[LabelArray, dict[int, str]]:
    """Segment numbers of all voxels, and the segments' names."""
    labels = np.ascontiguousarray(segmentation.labels)
    if segmentation.laterality is None:
        return (labels > 0).view(np.uint8), {1: NAMES[UNSIDED]}
    numbers = (RIGHT, LEFT, UNSIDED) if (labels == UNSIDED).any() else (RIGHT, LEFT)
    return labels, {number: NAMES[number] for number in numbers}
