"""The stress set: slices of known truth as other scanners, exports, bodies and diseases show them.

It stands in for the slices that nobody has sent yet. Each stress is a rule: it changes a slice at
its own size, on the HU-like scale of ``training.data.intensity``, and says how the slice is then
written: as HU, as stored, or as an 8-bit picture. What it draws follows from the slice's name.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lungseg.core.resample import resample
from lungseg.core.types import AIR_HU, Scan
from lungseg.formats.read import read_scan
from training.data.dataset import Sample
from training.data.pieces import KNOWN, Piece, Plane, as_piece
from training.synthetic import anatomy
from training.synthetic.views import STANDARD_WINDOWS_HU

Change = Callable[[Piece, np.random.Generator], Piece]
Show = Callable[[Plane], Scan]

JPEG_QUALITY = 50
NOISE_HU = 80.0
BLUR_SHARE = 1 / 256
"""Standard deviation of the blur as a share of the side: two pixels of 512."""
APEX_SCALE = (0.3, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stress:
    """One rule.

    Attributes:
        name: what the table calls it.
        change: of anatomy or geometry.
        show: how the result is written; None = as the file stored it.
    """

    name: str
    change: Change
    show: Show | None


def stressed(
    rule: Stress, sample: Sample, piece: Piece | None = None
) -> tuple[Scan, NDArray[np.bool_], NDArray[np.bool_]]:
    """A slice under a stress.

    Args:
        rule: the stress.
        sample: the slice.
        piece: what ``sample`` is on the HU-like scale, if that is known already.

    Returns:
        What is shown to the model, its truth, and what of it does not count.
    """
    piece = piece or as_piece(sample)
    seed = zlib.crc32(f"{rule.name} {sample.pair.source}/{sample.pair.name}".encode())
    changed = rule.change(piece, np.random.default_rng(seed))
    scan = sample.scan if rule.show is None else rule.show(changed.hu)
    return scan, changed.lung >= 0.5, changed.ignored > KNOWN


# --- how a slice is written ---------------------------------------------------------------------


def _as_hu(hu: Plane) -> Scan:
    return Scan(values=np.rint(hu)[None], unit="HU", media_type="application/dicom")


def _as_picture(hu: Plane, low: float, high: float, gamma: float = 1.0) -> Scan:
    grey = np.clip((hu - low) / (high - low), 0, 1) ** gamma
    values = np.rint(grey * 255).astype(np.float32)
    return Scan(values=values[None], unit="grey level", media_type="image/png", white=255.0)


def _as_jpeg(hu: Plane, low: float, high: float) -> Scan:
    file = io.BytesIO()
    grey = _as_picture(hu, low, high).values[0].astype(np.uint8)
    Image.fromarray(grey).save(file, "JPEG", quality=JPEG_QUALITY)
    return read_scan(file.getvalue())


def _from_least_to_greatest(hu: Plane) -> Scan:
    return _as_picture(hu, float(hu.min()), float(hu.max()))


# --- what a slice shows -------------------------------------------------------------------------


def _same(piece: Piece, _random: np.random.Generator) -> Piece:
    return piece


def _all_planes(piece: Piece, change: Callable[[Plane], Plane]) -> Piece:
    planes = {item.name: getattr(piece, item.name) for item in fields(piece)}
    return Piece(**{name: np.ascontiguousarray(change(plane)) for name, plane in planes.items()})


def _turned(piece: Piece, _random: np.random.Generator, *, quarters: int) -> Piece:
    return _all_planes(piece, partial(np.rot90, k=quarters))


def _mirrored(piece: Piece, _random: np.random.Generator) -> Piece:
    return _all_planes(piece, np.fliplr)


def _prone(piece: Piece, random: np.random.Generator) -> Piece:
    """The patient turned over on a table that stays where it is."""
    turned = _turned(piece, random, quarters=2)
    bare = np.where(piece.body > 0, AIR_HU, piece.hu)
    return replace(turned, hu=np.where(turned.body > 0, turned.hu, bare).astype(np.float32))


def _half_field(piece: Piece, _random: np.random.Generator) -> Piece:
    height, width = piece.hu.shape
    rows, columns = slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)
    return _all_planes(piece, lambda plane: plane[rows, columns])


def _double_field(piece: Piece, _random: np.random.Generator) -> Piece:
    height, width = piece.hu.shape
    size = (height // 2, width // 2)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2

    def framed(plane: Plane, outside: float) -> Plane:
        wide = np.full(plane.shape, outside, np.float32)
        wide[top : top + size[0], left : left + size[1]] = resample(plane, size)
        return wide

    outside_hu = float(np.percentile(piece.hu, 1))
    return Piece(
        hu=framed(piece.hu, outside_hu),
        lung=framed(piece.lung, 0),
        body=framed(piece.body, 0),
        ignored=framed(piece.ignored, 0),
        airway=framed(piece.airway, 0),
    )


def _noisy(piece: Piece, random: np.random.Generator) -> Piece:
    noise = np.float32(NOISE_HU) * random.standard_normal(piece.hu.shape, np.float32)
    return replace(piece, hu=piece.hu + noise)


def _streaky(piece: Piece, random: np.random.Generator) -> Piece:
    """Noise drawn out along the rows, as where few photons cross arms and shoulders."""
    noise = random.standard_normal(piece.hu.shape, np.float32)
    noise = ndimage.gaussian_filter1d(noise, BLUR_SHARE * piece.hu.shape[0], axis=1)
    return replace(piece, hu=piece.hu + np.float32(NOISE_HU) * noise / noise.std())


def _blurred(piece: Piece, _random: np.random.Generator) -> Piece:
    sigma = BLUR_SHARE * piece.hu.shape[0]
    return replace(piece, hu=np.asarray(ndimage.gaussian_filter(piece.hu, sigma)))


def _on_ground(piece: Piece, _random: np.random.Generator, *, outside_hu: float) -> Piece:
    return anatomy.on_ground(piece, outside_hu)


def _abdomen(piece: Piece, random: np.random.Generator) -> Piece:
    return anatomy.with_gas(anatomy.without_lungs(piece, random), random)


_LUNG, _WIDE, _MEDIASTINUM = (
    partial(_as_picture, low=low, high=high) for low, high in STANDARD_WINDOWS_HU
)
_WHITE_PAGE = partial(_on_ground, outside_hu=1000.0)
_APEX = partial(anatomy.shrunken, scale=APEX_SCALE)

STRESSES: tuple[Stress, ...] = tuple(
    Stress(name=name, change=change, show=show)
    for name, change, show in (
        ("as stored", _same, None),
        ("calibrated HU", _same, _as_hu),
        ("window lung [-1350, 150]", _same, _LUNG),
        ("window narrow lung [-1200, -200]", _same, partial(_as_picture, low=-1200, high=-200)),
        ("window wide [-1024, 600]", _same, _WIDE),
        ("window bone [-450, 1050]", _same, partial(_as_picture, low=-450, high=1050)),
        ("window mediastinum [-160, 240]", _same, _MEDIASTINUM),
        ("window abdomen [-125, 225]", _same, partial(_as_picture, low=-125, high=225)),
        ("minimum to maximum", _same, _from_least_to_greatest),
        ("minimum to maximum, blur", _blurred, _from_least_to_greatest),
        ("gamma 0.5", _same, partial(_LUNG, gamma=0.5)),
        ("gamma 2", _same, partial(_LUNG, gamma=2.0)),
        ("JPEG quality 50, lung", _same, partial(_as_jpeg, low=-1350, high=150)),
        ("JPEG quality 50, mediastinum", _same, partial(_as_jpeg, low=-160, high=240)),
        ("white outside", _WHITE_PAGE, _LUNG),
        ("white outside, mediastinum", _WHITE_PAGE, _MEDIASTINUM),
        ("grey outside", partial(_on_ground, outside_hu=-500.0), _LUNG),
        ("table removed", partial(_on_ground, outside_hu=AIR_HU), _as_hu),
        ("turned by 90°", partial(_turned, quarters=1), _as_hu),
        ("turned by 180°", partial(_turned, quarters=2), _as_hu),
        ("mirrored", _mirrored, _as_hu),
        ("prone", _prone, _as_hu),
        ("field halved", _half_field, _as_hu),
        ("field halved, lung", _half_field, _LUNG),
        ("field halved, mediastinum", _half_field, _MEDIASTINUM),
        ("field doubled", _double_field, _as_hu),
        ("field doubled, minimum to maximum", _double_field, _from_least_to_greatest),
        ("noise", _noisy, _as_hu),
        ("streaky noise", _streaky, _as_hu),
        ("blur", _blurred, _as_hu),
        ("metal streaks", anatomy.with_streaks, _as_hu),
        ("apex", _APEX, _as_hu),
        ("apex, mediastinum", _APEX, _MEDIASTINUM),
        ("base", anatomy.with_domes, _as_hu),
        ("base, mediastinum", anatomy.with_domes, _MEDIASTINUM),
        ("consolidation", anatomy.consolidated, _as_hu),
        ("consolidation, mediastinum", anatomy.consolidated, _MEDIASTINUM),
        ("effusion", anatomy.with_effusion, _as_hu),
        ("effusion, mediastinum", anatomy.with_effusion, _MEDIASTINUM),
        ("expiration", anatomy.expired, _as_hu),
        ("expiration, wide", anatomy.expired, _WIDE),
        ("bowel gas", anatomy.with_gas, _as_hu),
        ("bowel gas, mediastinum", anatomy.with_gas, _MEDIASTINUM),
        ("no lung", anatomy.without_lungs, _as_hu),
        ("no lung, mediastinum", anatomy.without_lungs, _MEDIASTINUM),
        ("no lung, bowel gas", _abdomen, _as_hu),
        ("no lung, bowel gas, mediastinum", _abdomen, _MEDIASTINUM),
    )
)
"""The stress set, in the order of its table."""
