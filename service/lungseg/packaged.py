"""What comes with the package: the default model, a sample slice and scan, the page's files."""

from __future__ import annotations

from pathlib import Path

SAMPLE_CITATION = (
    "Of LIDC-IDRI (Armato et al. 2011, Med Phys 38:915) through The Cancer Imaging "
    "Archive (Clark et al. 2013, J Digit Imaging 26:1045), CC BY 3.0."
)
_PACKAGE = Path(__file__).parent
_BUNDLE = "*/[1-9]*/model.onnx"


def sample_slice() -> Path:
    """A real chest CT slice, DICOM; ``SAMPLE_CITATION`` says whose."""
    return _PACKAGE / "samples" / "chest.dcm"


def sample_volume() -> Path:
    """A real chest in coarse voxels, NIfTI, made by ``docs/sample_volume.py``."""
    return _PACKAGE / "samples" / "chest.nii.gz"


def page_folder() -> Path:
    """The files of the page at ``/``, as browsers get them."""
    return _PACKAGE / "page"


def models_folder() -> Path:
    """The folder ``models`` here where it holds a model, else the package's, else the checkout's.

    Where there is none at all, it is the one here again.
    """
    here = Path("models")
    places = (here, _PACKAGE / "models", _PACKAGE.parents[1] / "models")
    return next((place for place in places if any(place.glob(_BUNDLE))), here)
