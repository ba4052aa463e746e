"""The second half of ``python -m bench load``: peak memory while the largest slices come."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path

import numpy as np
import pydicom
import yaml
from pydicom.uid import JPEGLSLossless

from bench import host, wire
from lungseg.settings import Settings
from training.synthetic.phantom import dicom_bytes, make_phantom

MANIFEST = Path(__file__).parents[1] / "docker" / "kubernetes" / "base" / "deployment.yaml"
CALLERS = 40
"""More than fit into what the service holds of bodies by default, 1 GiB."""
SECONDS = 10.0
"""Of each kind of slice; what was sent by then is waited for."""
SIDE = 512
"""Rows and columns of the volume's slices."""
HEADER_BYTES = 4096
"""Room for what an array's file has before its values."""
RESERVE = 1.25
"""The manifests' limit is at least so many times the peak: other mixes of slices may take more."""


def run(models: Path, model: str) -> bool:
    """Prints the peak, and whether the limit that the manifests set is well above it.

    The workers are the manifests', all else has its default. The peak is that of the service and
    its decoders together, each process at its own highest.
    """
    container = yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"]["containers"][0]
    workers = next(item["value"] for item in container["env"] if item["name"] == "LUNGSEG_WORKERS")
    limit_mb = mebibytes(container["resources"]["limits"]["memory"]) * 2**20 / 1e6
    peak_mb, answered = 0.0, 0
    volume = wire.request("/segment/volume?unit=hu&spacing_mm=1,1,1", longest())
    with host.service(models, model, WORKERS=workers) as service:
        for path, content in largest().items():
            answered += asyncio.run(_both(service.port, wire.request(path, content), volume))
            peak_mb = max(peak_mb, service.peak_mb())
    held = answered > 0 and RESERVE * peak_mb <= limit_mb
    print(
        f"{'ok  ' if held else 'MISS'} peak memory {peak_mb:.0f} MB, {workers} workers and the "
        f"largest slices and volume ({answered} answered); limit of the "
        f"manifests {limit_mb:.0f} MB, expected {RESERVE:g} times the peak or more"
    )
    return held


async def _both(port: int, slices: bytes, volume: bytes) -> int:
    """How many slices are answered while a volume is computed."""
    tallies = await asyncio.gather(
        wire.closed_loop(port, slices, CALLERS, SECONDS), wire.closed_loop(port, volume, 1, SECONDS)
    )
    return len(tallies[0].ok())


def longest() -> bytes:
    """A volume of as many voxels as are accepted."""
    chest = np.rint(make_phantom((SIDE, SIDE)).hu).astype(np.int16)
    room = Settings.model_fields["max_volume_bytes"].default - HEADER_BYTES
    stream = io.BytesIO()
    np.save(stream, np.broadcast_to(chest, (room // chest.nbytes, SIDE, SIDE)))
    return stream.getvalue()


def largest() -> dict[str, bytes]:
    """Slices of as many pixels as are accepted, and the paths that make most of them."""
    side = int(Settings.model_fields["max_pixels"].default ** 0.5)
    plain = dicom_bytes(make_phantom((side, side)))
    header = pydicom.dcmread(io.BytesIO(plain))
    header.compress(JPEGLSLossless)
    stream = io.BytesIO()
    header.save_as(stream)
    array = io.BytesIO()
    np.save(array, header.pixel_array)
    return {
        "/segment?format=dicom-seg": plain,
        "/segment?format=overlay": stream.getvalue(),
        "/segment?format=probability": array.getvalue(),
    }


def mebibytes(quantity: str) -> int:
    """Kubernetes' ``1536Mi`` or ``2Gi`` as a number."""
    return int(quantity[:-2]) * {"Mi": 1, "Gi": 1024}[quantity[-2:]]
