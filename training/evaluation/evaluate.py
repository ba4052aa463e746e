"""Runs an exported model through the service's own pipeline and measures every slice."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lungseg.core.report import measure
from lungseg.core.runs import label_regions
from lungseg.core.types import Scan, Segmentation
from lungseg.inference.model import Model
from lungseg.pipeline import Pipeline
from training.data.dataset import Pair, Sample, read_airway, read_sample
from training.evaluation.metrics import (
    Areas,
    Calibration,
    SliceMetrics,
    bootstrap_interval,
    calibration,
    compare_masks,
    measure_areas,
)

METRIC_NAMES = tuple(item.name for item in fields(SliceMetrics))
WORST_CASES = 12
"""Slices named as those of lowest Dice."""
DISTANCES = ("hd95", "assd")
DISTANCE_NOTE = (
    "HD95 and ASSD in mm where the spacing is known, else in pixels, and – where both would mix; "
    "slices whose lung is missed altogether, or invented, have no distance and are counted beside. "
    "ECE is the expected calibration error over pixels of uncertain probability, 0.1 to 0.9."
)
LARGE_SHARE, FOUND_SHARE = 0.2, 0.1
"""A region with this share of a slice's lung is lost where less than this of it is found."""
SUMMARY_METRICS = ("dice", "iou", "precision", "recall", "f1", "accuracy", "hd95", "assd")


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceResult:
    """One evaluated slice.

    Attributes:
        pair: the slice.
        metrics: agreement at the input's own size.
        calibration: reliability of its probabilities.
        areas: in cm², None where the spacing is unknown.
        height_mm: how far towards the head the slice lies, None where that is unknown.
        flags: codes that the answer carries.
        lost: a lung that is there is not in the mask at all.
    """

    pair: Pair
    metrics: SliceMetrics
    calibration: Calibration
    areas: Areas | None = None
    height_mm: float | None = None
    flags: frozenset[str] = frozenset()
    lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Figures over a group of slices.

    Attributes:
        group: ``all``, a source's or a patient's name.
        slices: how many.
        means: mean of each metric, NaN left out; of HD95 and ASSD NaN where some slices
            have a spacing and others none, for millimetres and pixels have no mean.
        unit: of HD95 and ASSD, ``mm`` or ``px``.
        missed: slices whose lung is missed altogether: HD95 and ASSD leave them out.
        invented: slices without lung on which some is found: they are left out, too.
        interval: 95% bootstrap interval of the mean Dice, drawn by patient.
        p5: 5th percentile of Dice.
        minimum: smallest Dice.
        calibration_error: expected calibration error over pixels of uncertain probability.
        false_positive_fraction: mean share wrongly called lung on slices without lung, NaN
            where there are none.
    """

    group: str
    slices: int
    means: dict[str, float]
    unit: str
    missed: int
    invented: int
    interval: tuple[float, float]
    p5: float
    minimum: float
    calibration_error: float
    false_positive_fraction: float


def predict(model: Model, scan: Scan) -> Segmentation:
    """Segments one slice exactly as the service does with the model's own parameters."""
    return Pipeline().find_lungs(scan, model)


def evaluate(
    model: Model,
    pairs: Sequence[Pair],
    *,
    vary: Callable[[Sample], Sample] = lambda sample: sample,
) -> Iterator[SliceResult]:
    """Measures slices one by one, so that memory does not grow with their number.

    Args:
        model: the exported model.
        pairs: slices with truths.
        vary: shows the model something else than the file, for example through a window.

    Raises:
        DataError: a file can't be read.
    """
    for pair in pairs:
        sample = vary(read_sample(pair))
        yield measure_slice(sample, predict(model, sample.scan))


def measure_slice(sample: Sample, found: Segmentation) -> SliceResult:
    """Compares what was found of a slice with its truth."""
    scan, mask = sample.scan, found.mask[0]
    areas = None
    if scan.spacing_mm is not None:
        areas = measure_areas(
            mask,
            sample.mask,
            scan.spacing_mm,
            ignored=sample.ignored,
            airway=read_airway(sample.pair),
        )
    return SliceResult(
        pair=sample.pair,
        metrics=compare_masks(mask, sample.mask, scan.spacing_mm, ignored=sample.ignored),
        calibration=calibration(found.probability[0], sample.mask, ignored=sample.ignored),
        areas=areas,
        height_mm=None if scan.positions_mm is None else float(scan.positions_mm[0, 2]),
        flags=frozenset(flag.code for flag in measure(scan, found).quality.flags),
        lost=_lost(found, sample.mask),
    )


def _lost(found: Segmentation, truth: NDArray[np.bool_]) -> bool:
    """Whether a large region of the truth has next to nothing in the mask."""
    regions, count = label_regions(truth)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)
    covered = np.bincount(regions[found.mask[0]], minlength=count + 1)
    large = sizes[1:] >= LARGE_SHARE * sizes[1:].sum()
    return bool((large & (covered[1:] < FOUND_SHARE * sizes[1:])).any())


def summarise(group: str, results: Sequence[SliceResult]) -> Summary:
    """Figures over a group of at least one slice."""
    table = {
        name: np.array([getattr(result.metrics, name) for result in results], float)
        for name in METRIC_NAMES
    }
    dice = table["dice"]
    without_lung = table["false_positive_fraction"][table["truth_fraction"] == 0]
    total = results[0].calibration
    for result in results[1:]:
        total = total + result.calibration
    means = {name: _mean(table[name]) for name in SUMMARY_METRICS}
    units = {"px" if result.areas is None else "mm" for result in results}
    if len(units) > 1:
        means |= dict.fromkeys(DISTANCES, float("nan"))
    alone = np.isnan(table["hd95"])
    return Summary(
        group=group,
        slices=len(results),
        means=means,
        unit="/".join(sorted(units)),
        missed=int((alone & (table["truth_fraction"] > 0)).sum()),
        invented=int((alone & (table["truth_fraction"] == 0)).sum()),
        interval=bootstrap_interval(dice, patients_of(results)),
        p5=float(np.percentile(dice, 5)),
        minimum=float(dice.min()),
        calibration_error=total.expected_error,
        false_positive_fraction=_mean(without_lung),
    )


def summarise_by(
    results: Sequence[SliceResult], key: Callable[[SliceResult], str]
) -> list[Summary]:
    """One summary for each group, in the order of the groups' names."""
    groups: dict[str, list[SliceResult]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return [summarise(name, groups[name]) for name in sorted(groups)]


def patients_of(results: Iterable[SliceResult]) -> list[tuple[str, str]]:
    """Whose slice each is: names are unique within a source only."""
    return [(result.pair.source, result.pair.patient) for result in results]


def worst(results: Iterable[SliceResult]) -> list[SliceResult]:
    """The slices of lowest Dice, the worst first."""
    return sorted(results, key=lambda result: (result.metrics.dice, result.pair.name))[:WORST_CASES]


def format_table(summaries: Sequence[Summary]) -> str:
    """A table of summaries as GitHub-flavoured Markdown."""
    head = (
        "group", "slices", "Dice (95% interval)", "p5", "min", "IoU", "precision", "recall",
        "F1", "accuracy", "HD95", "ASSD", "missed", "invented", "ECE",
    )  # fmt: skip
    rows = [
        (
            item.group,
            str(item.slices),
            f"{item.means['dice']:.4f} ({item.interval[0]:.4f}–{item.interval[1]:.4f})",
            f"{item.p5:.4f}",
            f"{item.minimum:.4f}",
            *(f"{item.means[name]:.4f}" for name in SUMMARY_METRICS[1:6]),
            *(_distance(item.means[name], item.unit) for name in DISTANCES),
            f"{item.missed}",
            f"{item.invented}",
            "–" if math.isnan(item.calibration_error) else f"{item.calibration_error:.4f}",
        )
        for item in summaries
    ]
    return markdown_table(head, rows)


def _distance(mean: float, unit: str) -> str:
    return "–" if math.isnan(mean) else f"{mean:.2f} {unit}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells as a table of GitHub-flavoured Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_slices(results: Iterable[SliceResult], path: Path) -> None:
    """Writes one CSV line for each slice; an unknown value is left empty."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("source", "patient", "name", *METRIC_NAMES))
        for result in results:
            values = asdict(result.metrics).values()
            cells = ("" if math.isnan(value) else f"{value:.6g}" for value in values)
            writer.writerow((result.pair.source, result.pair.patient, result.pair.name, *cells))


def _mean(values: NDArray[np.float64]) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")
