"""Flags on doubtful volumes, each with the named threshold that raises it.

Those on the geometry come with the scan, from its reader; what a single slice is flagged for is
flagged by the same thresholds (``quality``), over all planes.
"""

from __future__ import annotations

import math

import numpy as np

from lungseg.core.axial import AxialPlanes
from lungseg.core.geometry import distances_mm, step_mm
from lungseg.core.quality import (
    MAX_TILT_DEGREES,
    MEDIAN_RANGE_HU,
    SINGLE_LUNG_FRACTION,
    Flag,
    is_miscalibrated,
    is_outside,
    is_unsure,
    lacks_figures,
)
from lungseg.core.regions import bounding_box
from lungseg.core.types import LOSSY, LabelArray, Scan, Segmentation
from lungseg.core.volume_measures import VolumeStatistics
from lungseg.core.volume_surroundings import look_around_volume

VOLUME_RANGE_ML = (1000.0, 10_000.0)
"""Both lungs of adults: 564 healthy ones had 4468 ± 1271 ml (doi 10.2147/COPD.S187596)."""
LEAST_CUT_MM2 = 50.0
"""Lung in the first or last plane: with less, hardly any lies beyond."""
LEAST_UNLABELLED_ML = 2.0
"""Air that is left out, over all planes with more than a slice may have."""
LEAST_OUTSIDE_ML = 1.0
"""Mask in the air around the body, over all planes with more than a slice may have."""
MAX_GAP = 1.5
"""A gap of more steps than this lacks a slice."""
SHOWN_GAPS = 3
"""So many gaps are named in a message."""
OFFSET_MEDIAN_HU = 0.0
"""Lung whose median is denser than water has shifted values."""
JUDGED_PLANES = 9
"""So many planes, evenly apart, tell whether values are in HU."""
NOTED = (
    "not_ct",
    "duplicate_slices",
    "non_uniform_spacing",
    "gantry_tilt",
    "orientation_unknown",
    "single_slice",
    "transforms_differ",
    "values_missing",
)
"""Notes of a scan that are flags of its volume as they stand."""
Raised = dict[str, bool | str]
"""By code: whether a flag is raised, or what its message says more."""


def find_volume_flags(
    planes: AxialPlanes, segmentation: Segmentation, statistics: VolumeStatistics
) -> tuple[Flag, ...]:
    """All flags that the answer for a volume deserves, in a fixed order."""
    labels = planes.view.apply(segmentation.labels)
    raised = _of_geometry(planes) | _of_values(planes, labels, statistics)
    raised |= _of_surroundings(planes, labels)
    raised["empty_mask"] = not statistics.voxels
    raised["low_confidence"] = is_unsure(segmentation.confidence)
    if statistics.voxels:
        raised |= _of_coverage(planes, labels)
        raised["sides_unknown"] = statistics.laterality is None
        raised["single_lung"] = _is_single(statistics)
        raised["volume_out_of_range"] = is_outside(statistics.volume_ml, VOLUME_RANGE_ML)
    return tuple(
        Flag(code=code, message=message.format(raised[code]))
        for code, message in _MESSAGES.items()
        if raised.get(code)
    )


def _of_geometry(planes: AxialPlanes) -> Raised:
    scan = planes.scan
    raised: Raised = {code: code in scan.notes for code in NOTED}
    if "missing_slices" in scan.notes:
        raised["missing_slices"] = _gaps(scan)
    raised["spacing_unknown"] = planes.heights_mm is None or planes.rows_mm is None
    raised["non_axial"] = planes.tilt_degrees > MAX_TILT_DEGREES
    return raised


def _gaps(scan: Scan) -> str:
    """Between which positions along the normal slices are missing."""
    distances, step = distances_mm(scan), step_mm(scan)
    if distances is None or step is None:
        return "where is unknown"
    wide = np.flatnonzero(np.abs(np.diff(distances)) > MAX_GAP * step)
    places = [f"{distances[k]:.1f} to {distances[k + 1]:.1f} mm" for k in wide[:SHOWN_GAPS]]
    more = f" and {wide.size - SHOWN_GAPS} more" if wide.size > SHOWN_GAPS else ""
    return "from " + ", ".join(places) + more


def _of_values(planes: AxialPlanes, labels: LabelArray, statistics: VolumeStatistics) -> Raised:
    scan, in_hu = planes.scan, planes.scan.unit == "HU"
    median = statistics.intensity.median if in_hu else None
    shifted = is_outside(median, (-math.inf, OFFSET_MEDIAN_HU))
    odd = in_hu and (is_outside(median, MEDIAN_RANGE_HU) or _is_miscalibrated(planes, labels))
    return {
        "lossy_compression": in_hu and LOSSY in scan.notes,
        "not_calibrated_hu": not in_hu,
        "intensity_offset_suspect": "intensity_offset_suspect" in scan.notes or shifted,
        "intensity_out_of_range": odd,
        "values_limited": in_hu and _is_limited(statistics),
    }


def _is_miscalibrated(planes: AxialPlanes, labels: LabelArray) -> bool:
    """Whether most of some planes lack air, or body: of those with lung, where there are any."""
    shown = np.flatnonzero(labels.any(axis=(1, 2)))
    shown = shown if shown.size else np.arange(len(labels))
    places = np.unique(np.rint(np.linspace(0, shown.size - 1, JUDGED_PLANES)).astype(int))
    odd = [is_miscalibrated(planes[place]) for place in shown[places].tolist()]
    return 2 * sum(odd) > len(odd)


def _is_limited(statistics: VolumeStatistics) -> bool:
    """Whether a figure is missing although there is lung of HU."""
    regions = (statistics, statistics.lungs.right, statistics.lungs.left)
    return any(
        lacks_figures(region.intensity, region.density)
        for region in regions
        if region and region.voxels
    )


def _is_single(statistics: VolumeStatistics) -> bool:
    right, left = statistics.lungs.right, statistics.lungs.left
    if right is None or left is None:
        return False
    return min(right.voxels, left.voxels) < SINGLE_LUNG_FRACTION * statistics.voxels


def _of_coverage(planes: AxialPlanes, labels: LabelArray) -> Raised:
    """Whether lung reaches the ends of the stack, or the borders of its planes."""
    borders = (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])
    raised: Raised = {"touches_border": any(bool(border.any()) for border in borders)}
    if len(labels) == 1:
        return raised
    for code, plane in (("incomplete_base", labels[0]), ("incomplete_apex", labels[-1])):
        box = bounding_box(plane > 0)
        area = planes.area_mm2(plane[box] > 0, box) if plane.any() else 0.0
        if area is None:
            raised[code] = "an unknown area"
        elif area >= LEAST_CUT_MM2:
            raised[code] = f"{area / 100:.1f} cm²"
    return raised


def _of_surroundings(planes: AxialPlanes, labels: LabelArray) -> Raised:
    around = look_around_volume(planes, labels)
    raised: Raised = {}
    if around.unlabelled_ml >= LEAST_UNLABELLED_ML:
        plane, row, column = around.place
        where = f"most in axial plane {plane} from the feet, about row {row}, column {column}"
        raised["air_unlabelled"] = f"about {around.unlabelled_ml:.0f} ml, {where}"
    if around.outside_ml >= LEAST_OUTSIDE_ML:
        raised["outside_body"] = f"about {around.outside_ml:.0f} ml"
    return raised


_MESSAGES = {
    "not_ct": "the DICOM headers do not say that these are CT slices",
    "single_slice": "one slice is no volume: its height is unknown",
    "orientation_unknown": "the file does not say how it lies in the patient: sides are those of "
    "the radiological convention",
    "transforms_differ": "the file says twice how it lies in the patient, and not the same: the "
    "first way (sform) was taken",
    "duplicate_slices": "slices were sent twice: one of each was kept",
    "missing_slices": "slices are missing, {}: their lung is estimated from their neighbours'",
    "non_uniform_spacing": "the distance of slices changes: each counts for what it stands for",
    "gantry_tilt": "the gantry was tilted: slices are shifted against each other",
    "spacing_unknown": "the distance of slices or pixels is unknown: no volumes are given",
    "non_axial": f"the planes are more than {MAX_TILT_DEGREES:g}° off the axial plane",
    "lossy_compression": "the file was compressed with loss: densities are approximate",
    "not_calibrated_hu": "intensities are not in Hounsfield units: no densities are given",
    "intensity_offset_suspect": "all values look shifted, as if an offset was left out",
    "empty_mask": "no lung was found",
    "single_lung": "nearly all of the lung found is on one side",
    "sides_unknown": "right and left cannot be told apart",
    "touches_border": "the lung found touches the border of the picture: it may be cut off",
    "incomplete_base": "the lowest plane holds {} of lung: what lies below is not in the volume",
    "incomplete_apex": "the highest plane holds {} of lung: what lies above is not in the volume",
    "volume_out_of_range": "the lungs found are smaller or larger than those of adults",
    "low_confidence": "the network was unsure about this volume",
    "air_unlabelled": "air of lung density inside the body is not in the mask: {}",
    "outside_body": "the mask reaches into the air around the body: {}",
    "intensity_out_of_range": "the intensities of the volume, or of the lung found, are not in HU",
    "values_missing": "the file holds values that are no numbers: nothing was measured there",
    "values_limited": "the file's values end, lie too far apart or are padding: what they cannot "
    "show is null",
}
VOLUME_CODES = tuple(_MESSAGES)
"""Every code that a flag of a volume may have."""
