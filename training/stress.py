"""The stress set: slices of known truth as other scanners, exports, bodies and diseases show them.

It stands in for the slices that nobody has sent yet. Each stress is a rule: it changes a slice at
its own size, on the HU-like scale of ``training.intensity``, and says how the slice is then
written: as HU, as stored, or as an 8-bit picture. What it draws follows from the slice's name.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from service.core.preprocess import resample
from service.core.types import AIR_HU, Scan
from service.formats.read import ReadOptions, read_scan
from service.inference.model import Model
from training import anatomy
from training.anatomy import Plane, Slice
from training.clean import body_and_dark
from training.dataset import Pair, Sample, read_sample
from training.evaluate import predict
from training.intensity import pseudo_hu
from training.metrics import dice_of

Change = Callable[[Slice, np.random.Generator], Slice]
Show = Callable[[Plane], Scan]

LUNG_WINDOW = (-1350.0, 150.0)
MEDIASTINAL_WINDOW = (-160.0, 240.0)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StressResult:
    """What became of all slices under one stress.

    Attributes:
        name: of the stress.
        dice: of each slice, at the shown slice's size.
        false_positive: share of each slice that is wrongly called lung.
        without_lung: whether the truth is empty throughout: only false positives tell then.
    """

    name: str
    dice: NDArray[np.float64]
    false_positive: NDArray[np.float64]
    without_lung: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StressSummary:
    """A whole table in a few figures; None where it has no such stress.

    Attributes:
        mean: mean Dice over all stresses with lung.
        lowest_mean: the lowest mean Dice of a stress and its name.
        lowest_p5: the lowest 5th percentile of Dice of a stress and its name.
        false_positive: mean share of the slice called lung over the stresses without lung.
        most_false_positive: the largest such share of a stress and its name.
    """

    mean: float | None = None
    lowest_mean: tuple[float, str] | None = None
    lowest_p5: tuple[float, str] | None = None
    false_positive: float | None = None
    most_false_positive: tuple[float, str] | None = None

    def describe(self) -> str:
        """A sentence without its end."""
        parts = []
        if self.mean is not None and self.lowest_mean and self.lowest_p5:
            parts = [
                f"mean Dice {self.mean:.4f} over the stresses with lung",
                "lowest mean {:.4f} ({})".format(*self.lowest_mean),
                "lowest p5 {:.4f} ({})".format(*self.lowest_p5),
            ]
        if self.false_positive is not None and self.most_false_positive:
            parts += [
                f"false-positive area {self.false_positive:.3%} where there is no lung",
                "at most {:.3%} ({})".format(*self.most_false_positive),
            ]
        return ", ".join(parts)


def stress(
    models: Sequence[Model], pairs: Iterable[Pair], *, limit: int | None = None
) -> list[list[StressResult]]:
    """Measures models on the same stressed slices, through the service's own pipeline.

    Args:
        models: one or more.
        pairs: slices with truths, none of them trained on.
        limit: how many of them to use at most, evenly chosen.

    Returns:
        For each model one result for each stress.

    Raises:
        DataError: a file can't be read.
    """
    return stress_masks(
        lambda scan: [predict(model, scan).mask[0] for model in models], pairs, limit=limit
    )


def stress_masks(
    draw: Callable[[Scan], Sequence[NDArray[np.bool_]]],
    pairs: Iterable[Pair],
    *,
    limit: int | None = None,
) -> list[list[StressResult]]:
    """Measures several ways of drawing a mask on the same stressed slices.

    Args:
        draw: makes a mask of a slice in each of the ways.
        pairs: slices with truths.
        limit: how many of them to use at most, evenly chosen.

    Returns:
        For each way one result for each stress.

    Raises:
        DataError: a file can't be read.
    """
    pairs = list(pairs)
    if limit is not None and len(pairs) > limit:
        pairs = [pairs[place * len(pairs) // limit] for place in range(limit)]
    found: dict[tuple[int, str], list[tuple[float, float, bool]]] = {}
    for pair in pairs:
        sample = read_sample(pair)
        piece = _piece(sample)
        for rule in STRESSES:
            scan, truth = stressed(rule, sample, piece)
            for number, mask in enumerate(draw(scan)):
                wrong = float((mask & ~truth).mean())
                row = (dice_of(mask, truth), wrong, bool(truth.any()))
                found.setdefault((number, rule.name), []).append(row)
    return [
        [_result(rule.name, found[number, rule.name]) for rule in STRESSES]
        for number in sorted({number for number, _ in found})
    ]


def stressed(
    rule: Stress, sample: Sample, piece: Slice | None = None
) -> tuple[Scan, NDArray[np.bool_]]:
    """A slice under a stress.

    Args:
        rule: the stress.
        sample: the slice.
        piece: what ``sample`` is on the HU-like scale, if that is known already.

    Returns:
        What is shown to the model, and its truth.
    """
    piece = piece or _piece(sample)
    seed = zlib.crc32(f"{rule.name} {sample.pair.source}/{sample.pair.name}".encode())
    changed = rule.change(piece, np.random.default_rng(seed))
    scan = sample.scan if rule.show is None else rule.show(changed.hu)
    return scan, changed.lung >= 0.5


def format_stress(results: Sequence[StressResult]) -> str:
    """A table as GitHub-flavoured Markdown and a line about the whole of it.

    Where there is no lung, only false positives tell.
    """
    lines = [
        "| stress | slices | mean Dice | p5 | min | false-positive area |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for item in results:
        dice = item.dice
        cells = [f"{dice.mean():.4f}", f"{np.percentile(dice, 5):.4f}", f"{dice.min():.4f}", "–"]
        if item.without_lung:
            cells = ["–", "–", "–", f"{item.false_positive.mean():.3%}"]
        lines.append(f"| {item.name} | {len(dice)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"All: {sum_up(results).describe()}."])


def sum_up(results: Sequence[StressResult]) -> StressSummary:
    """The mean over all stresses and the worst of them: what two models differ in at a glance."""
    summary = StressSummary()
    if with_lung := [item for item in results if not item.without_lung]:
        summary = replace(
            summary,
            mean=float(np.mean([item.dice.mean() for item in with_lung])),
            lowest_mean=min((float(item.dice.mean()), item.name) for item in with_lung),
            lowest_p5=min((float(np.percentile(item.dice, 5)), item.name) for item in with_lung),
        )
    if without := [item for item in results if item.without_lung]:
        shares = [(float(item.false_positive.mean()), item.name) for item in without]
        summary = replace(
            summary,
            false_positive=float(np.mean([share for share, _ in shares])),
            most_false_positive=max(shares),
        )
    return summary


def joined(tables: Sequence[Sequence[StressResult]]) -> list[StressResult]:
    """Puts the slices of several tables together, as of the folds of a cross-validation."""
    return [
        replace(
            rows[0],
            dice=np.concatenate([row.dice for row in rows]),
            false_positive=np.concatenate([row.false_positive for row in rows]),
        )
        for rows in zip(*tables, strict=True)
    ]


def _result(name: str, rows: Sequence[tuple[float, float, bool]]) -> StressResult:
    dice, wrong, lung = zip(*rows, strict=True)
    return StressResult(
        name=name,
        dice=np.array(dice),
        false_positive=np.array(wrong),
        without_lung=not any(lung),
    )


def _piece(sample: Sample) -> Slice:
    body, _ = body_and_dark(sample.scan.values[0])
    return Slice(
        hu=pseudo_hu(sample.scan),
        lung=sample.mask.astype(np.float32),
        body=body.astype(np.float32),
    )


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
    return read_scan(file.getvalue(), ReadOptions())


def _from_least_to_greatest(hu: Plane) -> Scan:
    return _as_picture(hu, float(hu.min()), float(hu.max()))


# --- what a slice shows -------------------------------------------------------------------------


def _same(piece: Slice, _random: np.random.Generator) -> Slice:
    return piece


def _all_planes(piece: Slice, change: Callable[[Plane], Plane]) -> Slice:
    planes = (np.ascontiguousarray(change(plane)) for plane in (piece.hu, piece.lung, piece.body))
    return Slice(**dict(zip(("hu", "lung", "body"), planes, strict=True)))


def _turned(piece: Slice, _random: np.random.Generator, *, quarters: int) -> Slice:
    return _all_planes(piece, partial(np.rot90, k=quarters))


def _mirrored(piece: Slice, _random: np.random.Generator) -> Slice:
    return _all_planes(piece, np.fliplr)


def _prone(piece: Slice, random: np.random.Generator) -> Slice:
    """The patient turned over on a table that stays where it is."""
    turned = _turned(piece, random, quarters=2)
    bare = np.where(piece.body > 0, AIR_HU, piece.hu)
    return replace(turned, hu=np.where(turned.body > 0, turned.hu, bare).astype(np.float32))


def _half_field(piece: Slice, _random: np.random.Generator) -> Slice:
    height, width = piece.hu.shape
    rows, columns = slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)
    return _all_planes(piece, lambda plane: plane[rows, columns])


def _double_field(piece: Slice, _random: np.random.Generator) -> Slice:
    height, width = piece.hu.shape
    size = (height // 2, width // 2)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2

    def framed(plane: Plane, outside: float) -> Plane:
        wide = np.full(plane.shape, outside, np.float32)
        wide[top : top + size[0], left : left + size[1]] = resample(plane, size)
        return wide

    outside_hu = float(np.percentile(piece.hu, 1))
    return Slice(
        hu=framed(piece.hu, outside_hu), lung=framed(piece.lung, 0), body=framed(piece.body, 0)
    )


def _noisy(piece: Slice, random: np.random.Generator) -> Slice:
    noise = np.float32(NOISE_HU) * random.standard_normal(piece.hu.shape, np.float32)
    return replace(piece, hu=piece.hu + noise)


def _blurred(piece: Slice, _random: np.random.Generator) -> Slice:
    sigma = BLUR_SHARE * piece.hu.shape[0]
    return replace(piece, hu=np.asarray(ndimage.gaussian_filter(piece.hu, sigma)))


def _on_ground(piece: Slice, _random: np.random.Generator, *, outside_hu: float) -> Slice:
    return anatomy.on_ground(piece, outside_hu)


def _abdomen(piece: Slice, random: np.random.Generator) -> Slice:
    return anatomy.with_gas(anatomy.without_lungs(piece, random), random)


_LUNG = partial(_as_picture, low=LUNG_WINDOW[0], high=LUNG_WINDOW[1])
_MEDIASTINUM = partial(_as_picture, low=MEDIASTINAL_WINDOW[0], high=MEDIASTINAL_WINDOW[1])
_APEX = partial(anatomy.shrunken, scale=APEX_SCALE)

STRESSES: tuple[Stress, ...] = tuple(
    Stress(name=name, change=change, show=show)
    for name, change, show in (
        ("as stored", _same, None),
        ("calibrated HU", _same, _as_hu),
        ("window lung [-1350, 150]", _same, _LUNG),
        ("window narrow lung [-1200, -200]", _same, partial(_as_picture, low=-1200, high=-200)),
        ("window wide [-1024, 600]", _same, partial(_as_picture, low=-1024, high=600)),
        ("window bone [-450, 1050]", _same, partial(_as_picture, low=-450, high=1050)),
        ("window mediastinum [-160, 240]", _same, _MEDIASTINUM),
        ("window abdomen [-125, 225]", _same, partial(_as_picture, low=-125, high=225)),
        ("minimum to maximum", _same, _from_least_to_greatest),
        ("gamma 0.5", _same, partial(_LUNG, gamma=0.5)),
        ("gamma 2", _same, partial(_LUNG, gamma=2.0)),
        ("JPEG quality 50, lung", _same, partial(_as_jpeg, low=-1350, high=150)),
        ("JPEG quality 50, mediastinum", _same, partial(_as_jpeg, low=-160, high=240)),
        ("white outside", partial(_on_ground, outside_hu=1000.0), _LUNG),
        ("grey outside", partial(_on_ground, outside_hu=-500.0), _LUNG),
        ("table removed", partial(_on_ground, outside_hu=AIR_HU), _as_hu),
        ("turned by 90°", partial(_turned, quarters=1), _as_hu),
        ("turned by 180°", partial(_turned, quarters=2), _as_hu),
        ("mirrored", _mirrored, _as_hu),
        ("prone", _prone, _as_hu),
        ("field halved", _half_field, _as_hu),
        ("field doubled", _double_field, _as_hu),
        ("noise", _noisy, _as_hu),
        ("blur", _blurred, _as_hu),
        ("metal streaks", anatomy.with_streaks, _as_hu),
        ("apex", _APEX, _as_hu),
        ("apex, mediastinum", _APEX, _MEDIASTINUM),
        ("base", anatomy.with_domes, _as_hu),
        ("base, mediastinum", anatomy.with_domes, _MEDIASTINUM),
        ("consolidation", anatomy.consolidated, _as_hu),
        ("effusion", anatomy.with_effusion, _as_hu),
        ("bowel gas", anatomy.with_gas, _as_hu),
        ("bowel gas, mediastinum", anatomy.with_gas, _MEDIASTINUM),
        ("no lung", anatomy.without_lungs, _as_hu),
        ("no lung, mediastinum", anatomy.without_lungs, _MEDIASTINUM),
        ("no lung, bowel gas", _abdomen, _as_hu),
        ("no lung, bowel gas, mediastinum", _abdomen, _MEDIASTINUM),
    )
)
"""The stress set, in the order of its table."""
