"""``python -m bench volumes``: how long a whole chest takes, and what it does to slices meanwhile.

The chest is the packaged slice, a real one, many times over, moved a little from slice to slice:
what a decoder, the network and the measures do to a slice depends on its content.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import statistics
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from bench import host, samples, wire
from bench.aims import Aim, print_aims
from lungseg.formats.read import read_scan
from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from lungseg.packaged import sample_slice
from lungseg.volume_forms import VOLUME_FORMS
from lungseg.volumes import VolumePipeline

SLICES, STEP_MM = 400, 0.8
MOVES = 8
"""So many slices differ from each other."""
NIFTI_HU = 16
"""Code of int16 values times their bits, as NIfTI-1 has it in ``bitpix``."""
ROUNDS = 2
ALONE_S = 8.0
"""How long slices are sent alone before they are sent beside volumes."""
FORMS = ("nifti", "dicom-seg", "glb")
AIMS = (
    Aim("raw", f"s, {SLICES} slices of 512 x 512, zip of raw DICOM → JSON", 5.0),
    Aim("JPEG-LS", "s, the same as JPEG-LS", 7.0),
    Aim("JPEG 2000", "s, the same as JPEG 2000", 12.0),
    Aim("NIfTI", "s, the same as NIfTI.gz", 8.0),
    Aim("memory_mb", "MB at most above those of the idle service", 1000.0),
    Aim("forms_s", "s more for mesh, SEG and NIfTI together", 3.0),
    Aim("p99_ratio", "p99 of slices beside a volume against alone", 3.0),
)
"""The times are those of two cores."""


def run(models: Path, model: str) -> None:
    """Prints seconds by kind of file, memory, and what callers of ``/segment`` notice."""
    volumes = made()
    found: dict[str, float] = {}
    with host.service(models, model) as service:
        asyncio.run(_send(service.port, [wire.request("/segment", samples.picture())]))
        idle_mb = service.rss_mb()
        print(f"\nvolume of {SLICES} slices → JSON over HTTP, s (turns), MB sent")
        for name, content in volumes.items():
            path = "/segment/volume?unit=hu" if name == "NIfTI" else "/segment/volume"
            turns = asyncio.run(_send(service.port, [wire.request(path, content)] * ROUNDS))
            found[name] = statistics.median(turns)
            text = ", ".join(f"{seconds:.1f}" for seconds in turns)
            print(f"  {name:10} {text}  {len(content) / 1e6:.0f} MB")
        found["memory_mb"] = service.peak_mb() - idle_mb
    with host.service(models, model) as service:
        found["p99_ratio"] = _beside(service.port, volumes["raw"])
    found["forms_s"] = _forms(host.newest(models / model), volumes["raw"])
    print_aims(AIMS, found)


def made() -> dict[str, bytes]:
    """The volume by how it is sent."""
    found: dict[str, bytes] = {}
    syntaxes = {"raw": None, "JPEG-LS": JPEGLSLossless, "JPEG 2000": JPEG2000Lossless}
    for name, syntax in syntaxes.items():
        found[name] = _series(_moved(syntax))
    found["NIfTI"] = _nifti()
    return found


def _moved(syntax: str | None) -> list[pydicom.Dataset]:
    """The packaged slice, moved to the right pixel by pixel."""
    datasets: list[pydicom.Dataset] = []
    for move in range(MOVES):
        dataset = pydicom.dcmread(sample_slice())
        dataset.decompress()
        pixels = np.roll(dataset.pixel_array, move, axis=1)
        dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
        if syntax:
            dataset.compress(syntax)
        datasets.append(dataset)
    return datasets


def _series(datasets: list[pydicom.Dataset]) -> bytes:
    """A zip, stored, of so many slices one above the other."""
    stream = io.BytesIO()
    x, y, z = (float(value) for value in datasets[0].ImagePositionPatient)
    with zipfile.ZipFile(stream, "w") as archive:
        for index in range(SLICES):
            dataset = datasets[index % MOVES]
            dataset.SOPInstanceUID = f"2.25.{index + 1}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.ImagePositionPatient = [x, y, round(z + index * STEP_MM, 3)]
            dataset.InstanceNumber = index + 1
            one = io.BytesIO()
            dataset.save_as(one)
            archive.writestr(f"{index}.dcm", one.getvalue())
    return stream.getvalue()


def _nifti() -> bytes:
    """NIfTI-1 of the same values, by hand: 348 bytes of header, four of none, and the values."""
    scan = read_scan(sample_slice().read_bytes())
    plane = np.rint(scan.values[0]).astype("<i2")
    height, width = plane.shape
    row_mm, column_mm = scan.spacing_mm or (1.0, 1.0)
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, width, height, SLICES, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, NIFTI_HU)
    struct.pack_into("<8f", header, 76, 1, column_mm, row_mm, STEP_MM, 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    header[123] = 2  # mm
    struct.pack_into("<2h", header, 252, 0, 2)
    affine = [(-column_mm, 0, 0, 0), (0, -row_mm, 0, 0), (0, 0, STEP_MM, 0)]
    for axis, values in enumerate(affine):
        struct.pack_into("<4f", header, 280 + 16 * axis, *values)
    header[344:348] = b"n+1\0"
    planes = [np.roll(plane, index % MOVES, axis=1).tobytes() for index in range(SLICES)]
    return gzip.compress(bytes(header) + b"".join(planes), 6, mtime=0)


async def _send(port: int, messages: list[bytes]) -> list[float]:
    """Seconds of each request, one after the other."""
    connection, seconds = await wire.Connection.open(port), []
    for message in messages:
        begun = time.perf_counter()
        status, body = await connection.exchange(message)
        seconds.append(time.perf_counter() - begun)
        if status != 200:
            raise SystemExit(f"expected an answer, received {json.loads(body)}")
    connection.transport.close()
    return seconds


def _beside(port: int, volume: bytes) -> float:
    """The p99 of one caller of slices beside volumes, against that of one alone."""
    message = wire.request("/segment", sample_slice().read_bytes())
    asyncio.run(wire.closed_loop(port, message, 1, ALONE_S / 4))
    alone = asyncio.run(wire.closed_loop(port, message, 1, ALONE_S)).ok()

    async def both() -> list[float]:
        sending = asyncio.create_task(
            _send(port, [wire.request("/segment/volume", volume)] * ROUNDS)
        )
        seconds: list[float] = []
        while not sending.done():
            seconds += (await wire.closed_loop(port, message, 1, 0.2)).ok()
        await sending
        return sorted(seconds)

    beside = asyncio.run(both())
    print("\none caller of slices: p50, p99, most, in ms")
    for name, ordered in (("alone", alone), ("beside a volume", beside)):
        text = "  ".join(f"{wire.percentile(ordered, percent):6.1f}" for percent in (50, 99, 100))
        print(f"  {name:16} {text}")
    return wire.percentile(beside, 99) / wire.percentile(alone, 99)


def _forms(bundle: Path, content: bytes) -> float:
    """Seconds that further forms take, without HTTP and after the masks are there."""
    pipeline, total = VolumePipeline(threads=2), 0.0
    outcome = pipeline.segment(pipeline.read([content]), Model.load(bundle, Engine()))
    print("\nforms of the answer, s, MB")
    for name in FORMS:
        begun = time.perf_counter()
        size = len(VOLUME_FORMS[name].encode(outcome))
        spent = time.perf_counter() - begun
        print(f"  {name:10} {spent:5.1f}  {size / 1e6:.1f}")
        total += spent
    return total
