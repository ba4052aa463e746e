"""The forms of a volume's answer: one table for HTTP, OpenAPI, the command line and the library."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from lungseg.core.errors import InvalidParameter
from lungseg.core.mesh import check_places, lung_meshes
from lungseg.core.types import LEFT, RIGHT, UNSIDED
from lungseg.formats.archive import write_archive
from lungseg.formats.dicom_derived import Algorithm, check_source
from lungseg.formats.dicom_seg import volume_seg
from lungseg.formats.dicom_sr import volume_sr
from lungseg.formats.label_map import label_nifti, label_npz, label_nrrd, volume_nifti
from lungseg.formats.mesh import glb, stl
from lungseg.formats.montage import montage_png
from lungseg.formats.table import profile_csv
from lungseg.forms import Form, compact, summary

if TYPE_CHECKING:
    from lungseg.volumes import VolumeOutcome  # brings ONNX Runtime, which the names do not need

THREADS = 2
"""How many pack voxels at a time."""
SPARE_PARTS = (
    ("statistics", "profile"),
    ("statistics", "thirds"),
    ("volume", "series"),
    ("volume", "dropped"),
    ("statistics", "lungs"),
    ("statistics", "density"),
    ("statistics", "intensity"),
    ("volume", "affine_lps"),
)
"""Left out of the summary, in turn, where it is too long for a header."""


def volume_summary(outcome: VolumeOutcome) -> str:
    """The JSON answer without request id and timings, short enough for a header."""
    return summary(outcome.describe(), SPARE_PARTS)


def _json(outcome: VolumeOutcome) -> bytes:
    return compact(outcome.describe()).encode()


def _nifti(outcome: VolumeOutcome) -> bytes:
    return label_nifti(outcome.volume, outcome.segmentation.labels, THREADS)


def _nrrd(outcome: VolumeOutcome) -> bytes:
    return label_nrrd(outcome.volume, outcome.segmentation.labels, THREADS)


def _algorithm(outcome: VolumeOutcome) -> Algorithm:
    contract = outcome.model.contract
    return Algorithm(name=contract.name, version=contract.version, sha256=contract.sha256)


def _seg(outcome: VolumeOutcome, kind: Literal["BINARY", "LABELMAP"]) -> bytes:
    return volume_seg(outcome.volume, outcome.segmentation, _algorithm(outcome), kind)


def _sr(outcome: VolumeOutcome) -> bytes:
    statistics = outcome.report.statistics
    return volume_sr(outcome.volume, outcome.segmentation, statistics, _algorithm(outcome))


def _stl(outcome: VolumeOutcome) -> bytes:
    meshes = lung_meshes(outcome.volume, outcome.segmentation.labels)
    return stl(meshes, "ras" if outcome.query.space == "ras" else "lps")


def _glb(outcome: VolumeOutcome) -> bytes:
    statistics = outcome.report.statistics
    lungs = {RIGHT: statistics.lungs.right, LEFT: statistics.lungs.left}
    volumes_ml = {label: lung.volume_ml for label, lung in lungs.items() if lung}
    if not volumes_ml:
        volumes_ml[UNSIDED] = statistics.volume_ml
    return glb(lung_meshes(outcome.volume, outcome.segmentation.labels), volumes_ml)


def _png(outcome: VolumeOutcome) -> bytes:
    return montage_png(outcome.volume, outcome.segmentation)


def _zip(outcome: VolumeOutcome) -> bytes:
    """What a person wants to look at, in one file."""
    files: dict[str, bytes] = {
        "statistics.json": _json(outcome),
        "profile.csv": profile_csv(outcome.report.statistics.profile).encode(),
        "mask.nii.gz": _nifti(outcome),
    }
    files["montage.png"] = _png(outcome)
    with suppress(InvalidParameter):  # without known places there is no mesh
        files["lungs.glb"] = _glb(outcome)
    if outcome.query.include == "volume":
        files["volume.nii.gz"] = volume_nifti(outcome.volume, THREADS)
    return write_archive(files)


VOLUME_FORMS: dict[str, Form[VolumeOutcome]] = {
    "json": Form("application/json", ".json", _json),
    "nifti": Form("application/gzip", "_mask.nii.gz", _nifti),
    "nrrd": Form("application/x-nrrd", "_mask.nrrd", _nrrd),
    "npz": Form(
        "application/x-npz", "_mask.npz", lambda found: label_npz(found.segmentation.labels)
    ),
    "dicom-seg": Form(
        "application/dicom", "_seg.dcm", lambda found: _seg(found, "BINARY"), check_source
    ),
    "dicom-seg-labelmap": Form(
        "application/dicom", "_labelmap.dcm", lambda found: _seg(found, "LABELMAP"), check_source
    ),
    "dicom-sr": Form("application/dicom", "_sr.dcm", _sr, check_source),
    "stl": Form("model/stl", "_lungs.stl", _stl, check_places),
    "glb": Form("model/gltf-binary", "_lungs.glb", _glb, check_places),
    "png": Form("image/png", "_montage.png", _png),
    "zip": Form("application/zip", "_lungs.zip", _zip),
}
"""By name; of forms with one media type, ``Accept`` means the first."""
