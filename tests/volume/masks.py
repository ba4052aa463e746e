"""Lungs of the synthetic series, as the pipeline would hand them on, without a network."""

from __future__ import annotations

import numpy as np

from lungseg.core.types import Confidence, Segmentation
from lungseg.core.volume import Volume
from lungseg.formats.dicom_derived import Algorithm
from tests.volume.series import BEAD_HU, LUNG_HU

MODEL = Algorithm(name="lung-unet", version="3", sha256="5e" * 32)


def segmented(volume: Volume, *, sided: bool = True) -> Segmentation:
    """The lung's voxels as the right lung, and the bead alone as the left."""
    values = volume.scan.values
    labels = (np.abs(values - float(LUNG_HU)) < 100).astype(np.uint8)
    labels[values > BEAD_HU - 100] = 2
    return Segmentation(
        labels=labels,
        threshold=0.5,
        laterality="dicom_orientation" if sided else None,
        components=None,
        confidence=Confidence(mean_probability=0.9, uncertain_fraction=0.01, max_probability=1.0),
        probability=np.zeros((0, *labels.shape[1:]), np.float32),
    )
