"""Measurements of a volume's lungs as a DICOM structured report (PS3.16 TID 1500), by highdicom.

Its figures are those of the JSON answer, each lung's beside its segment of the BINARY
segmentation that the same input gives. Nobody has verified them, and it says so.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from lungseg.core.figures import HAA_HU, LAA_HU
from lungseg.core.measures import Intensity
from lungseg.core.types import LEFT, RIGHT, UNSIDED, Segmentation
from lungseg.core.volume import Volume
from lungseg.core.volume_measures import VolumeRegion, VolumeStatistics
from lungseg.formats.dicom_derived import (
    MANUFACTURER,
    NAMES,
    Algorithm,
    Derived,
    derived_of_volume,
)
from lungseg.formats.dicom_seg import LATERALITY, in_dicom, seg_identity

if TYPE_CHECKING:
    from highdicom.sr import ObservationContext

SERIES_NUMBER = 301
"""Behind the segmentation's."""
SEGMENTATION_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
PRIVATE = "99LUNGSEG"
"""Scheme of codes for what neither SNOMED CT nor DICOM has a code for."""
_CHEST = Code("169069000", "SCT", "CT of chest")
_LUNG = Code("39607008", "SCT", "Lung")
_BOTH_LUNGS = Code("74101002", "SCT", "Both lungs")
_VOLUME = Code("118565006", "SCT", "Volume")
_MASS = Code("118538004", "SCT", "Mass")
_ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
_DERIVATIONS = {
    "mean": Code("373098007", "SCT", "Mean"),
    "std": Code("386136009", "SCT", "Standard Deviation"),
    "median": Code("373099004", "SCT", "Median"),
}
_ML, _GRAM = Code("mL", "UCUM", "milliliter"), Code("g", "UCUM", "gram")
_HU, _RATIO = Code("[hnsf'U]", "UCUM", "Hounsfield unit"), Code("1", "UCUM", "no units")
_SHARES = {
    **{f"laa_{hu}": f"Fraction of lung below -{hu} HU" for hu in LAA_HU},
    **{f"haa_{hu}": f"Fraction of lung above -{hu} HU" for hu in HAA_HU},
}
_PERC15 = Code("perc15", PRIVATE, "15th percentile of attenuation")


class Figure(NamedTuple):
    """One measurement with its codes."""

    name: Code
    value: float
    unit: Code
    derivation: Code | None = None


def volume_sr(
    volume: Volume,
    segmentation: Segmentation,
    statistics: VolumeStatistics,
    algorithm: Algorithm,
) -> bytes:
    """Writes a Comprehensive 3D SR: what is known of each lung, and of both together.

    Args:
        volume: of DICOM slices, or of the frames of one object.
        segmentation: its lungs.
        statistics: what was measured of them; what is None is left out.
        algorithm: recorded with each lung's measurements.

    Raises:
        InvalidParameter: see ``dicom_seg``.
    """
    return in_dicom(lambda: _write(derived_of_volume(volume, segmentation, algorithm), statistics))


def figures_of(region: VolumeRegion) -> Iterator[Figure]:
    """The measurements of a part of the lungs that are known, in the order of the answer."""
    if region.volume_ml is not None:
        yield Figure(_VOLUME, region.volume_ml, _ML)
    if region.mass_g is not None:
        yield Figure(_MASS, region.mass_g, _GRAM)
    yield from _attenuation(region.intensity)
    if region.density is None:
        return
    for name, meaning in _SHARES.items():
        share = getattr(region.density, name)
        if share is not None:
            yield Figure(Code(name, PRIVATE, meaning), share, _RATIO)
    if region.density.perc15 is not None:
        yield Figure(_PERC15, region.density.perc15, _HU)


def _attenuation(intensity: Intensity) -> Iterator[Figure]:
    if intensity.unit != "HU":
        return
    for name, derivation in _DERIVATIONS.items():
        value = getattr(intensity, name)
        if value is not None:
            yield Figure(_ATTENUATION, value, _HU, derivation)


def _write(derived: Derived, statistics: VolumeStatistics) -> bytes:
    from highdicom import sr  # half a second that only callers of this format pay

    regions = _regions(derived, statistics)
    report = sr.MeasurementReport(
        observation_context=_observer(derived),
        procedure_reported=_CHEST,
        imaging_measurements=[
            *(_lung(derived, number, region) for number, region in regions.items()),
            *_together(derived, statistics),
        ],
        title=Code("126000", "DCM", "Imaging Measurement Report"),
    )
    date, time = derived.moment
    result = sr.Comprehensive3DSR(
        evidence=[*derived.sources, _reference(derived)],
        content=report,
        series_instance_uid=derived.series_uid("measurements"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=derived.uid("measurements"),
        instance_number=derived.instance_number,
        manufacturer=MANUFACTURER,
        is_complete=True,
        manufacturer_model_name=derived.algorithm.name,
        software_versions=derived.algorithm.version,
        device_serial_number=derived.algorithm.sha256[:16],
        series_description="Lung measurements, research use only",
        content_date=date,
        content_time=time,
    )
    derived.settle(result)
    stream = io.BytesIO()
    result.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _regions(derived: Derived, statistics: VolumeStatistics) -> dict[int, VolumeRegion]:
    """What was measured of each segment, by its number; nothing is of lung beside the sides."""
    lungs: dict[str, VolumeRegion | None] = {
        NAMES[RIGHT]: statistics.lungs.right,
        NAMES[LEFT]: statistics.lungs.left,
        NAMES[UNSIDED]: statistics if len(derived.names) == 1 else None,
    }
    found = {number: lungs[name] for number, name in derived.names.items()}
    return {number: region for number, region in found.items() if region is not None}


def _observer(derived: Derived) -> ObservationContext:
    from highdicom import sr

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived.series_uid("device"),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=derived.algorithm.name,
        serial_number=derived.algorithm.sha256[:16],
    )
    return sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=sr.CodedConcept("121007", "DCM", "Device"),
            observer_identifying_attributes=device,
        )
    )


def _lung(derived: Derived, number: int, region: VolumeRegion) -> Any:
    """The measurements of one lung, tied to its segment (TID 1411)."""
    from highdicom import sr

    laterality = LATERALITY.get(derived.names[number])
    reference = _reference(derived)
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=derived.tracking_uid(number), identifier=derived.tracking_id(number)
        ),
        referenced_segment=sr.ReferencedSegment(
            sop_class_uid=reference.SOPClassUID,
            sop_instance_uid=reference.SOPInstanceUID,
            segment_number=number,
            source_series=sr.SourceSeriesForSegmentation(derived.sources[0].SeriesInstanceUID),
        ),
        finding_type=_LUNG,
        finding_sites=[
            sr.FindingSite(_LUNG, laterality=None if laterality is None else Code(*laterality))
        ],
        algorithm_id=_identification(derived),
        measurements=_measurements(region),
    )


def _together(derived: Derived, statistics: VolumeStatistics) -> list[Any]:
    """The measurements of both lungs together (TID 1501), where they are told apart."""
    from highdicom import sr

    if len(derived.names) == 1:
        return []
    return [
        sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(
                uid=derived.series_uid("Both lungs"), identifier=f"{MANUFACTURER} Both lungs"
            ),
            finding_type=_LUNG,
            finding_sites=[sr.FindingSite(_BOTH_LUNGS)],
            algorithm_id=_identification(derived),
            measurements=_measurements(statistics),
        )
    ]


def _measurements(region: VolumeRegion) -> list[Any]:
    from highdicom import sr

    return [
        sr.Measurement(name, float(value), unit, derivation=derivation)
        for name, value, unit, derivation in figures_of(region)
    ]


def _identification(derived: Derived) -> Any:
    from highdicom import sr

    return sr.AlgorithmIdentification(
        name=derived.algorithm.name,
        version=derived.algorithm.version,
        parameters=[f"{name}={value}" for name, value in derived.settings.items()],
    )


def _reference(derived: Derived) -> Dataset:
    """What is told of the segmentation by those who refer to it."""
    reference = Dataset()
    reference.StudyInstanceUID = derived.sources[0].StudyInstanceUID
    reference.SeriesInstanceUID, reference.SOPInstanceUID = seg_identity(derived, "BINARY")
    reference.SOPClassUID = SEGMENTATION_CLASS
    return reference
