"""Whether a rule that repairs masks helps: each one on the same stressed slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lungseg.core.postprocess import cut
from lungseg.core.runs import label_regions
from lungseg.core.types import Scan, Segmentation
from lungseg.inference.model import Model
from training.data.clean import body_and_dark
from training.data.dataset import Pair
from training.evaluation.evaluate import markdown_table, predict
from training.evaluation.stress import StressResult, stress_masks, sum_up

Mask = NDArray[np.bool_]
Rule = Callable[[Segmentation, Scan], Mask]

ROUND = 0.6
"""Share of its bounding box that a round region fills; a circle fills 0.785."""
TRACHEA_AREA = 0.005
"""Largest share of a slice that a trachea takes."""


def try_rules(
    model: Model, pairs: Iterable[Pair], *, limit: int | None = None
) -> list[list[StressResult]]:
    """Measures a model on stressed slices under each rule.

    Args:
        model: the exported model.
        pairs: slices with truths, none of them trained on.
        limit: how many of them to use at most, evenly chosen.

    Returns:
        For each of ``RULES`` one result for each stress.

    Raises:
        DataError: a file can't be read.
    """

    def draw(scan: Scan) -> list[Mask]:
        found = predict(model, scan)
        return [rule(found, scan) for rule in RULES.values()]

    return stress_masks(draw, pairs, limit=limit)


def format_rules(tables: Sequence[Sequence[StressResult]]) -> str:
    """A table as GitHub-flavoured Markdown, a row for each of ``RULES``."""
    rows = []
    for name, results in zip(RULES, tables, strict=True):
        total = sum_up(results)
        cells = [f"{results[0].dice.mean():.4f}"]
        cells += ["–" if total.mean is None else f"{total.mean:.4f}"]
        cells += [
            "–" if worst is None else "{:.4f} ({})".format(*worst)
            for worst in (total.lowest_mean, total.lowest_p5)
        ]
        cells += ["–" if total.false_positive is None else f"{total.false_positive:.3%}"]
        rows.append((name, *cells))
    figures = ("mean Dice, all", "lowest mean", "lowest p5", "false-positive area")
    return markdown_table(("rule", tables[0][0].name, *figures), rows)


def _published(found: Segmentation, _scan: Scan) -> Mask:
    return found.mask[0]


def _segmented(
    found: Segmentation, _scan: Scan, *, threshold: float | None = None, largest: int = 0
) -> Mask:
    level = found.threshold if threshold is None else threshold
    return cut(found.probability, threshold=level, largest_components=largest)[0]


def _without_specks(found: Segmentation, _scan: Scan, *, share: float) -> Mask:
    mask = found.mask[0]
    regions, _ = label_regions(mask)
    return mask & (np.bincount(regions.ravel()) >= share * mask.size)[regions]


def _without_holes(found: Segmentation, _scan: Scan) -> Mask:
    return np.asarray(ndimage.binary_fill_holes(found.mask[0]))


def _inside_body(found: Segmentation, scan: Scan) -> Mask:
    body, _ = body_and_dark(scan.values[0], scan.unit)
    return found.mask[0] & body


def _without_trachea(found: Segmentation, _scan: Scan) -> Mask:
    """Leaves out small round regions between others, where the trachea and the main bronchi lie."""
    mask = found.mask[0].copy()
    regions, _ = label_regions(mask)
    columns = np.flatnonzero(mask.any(axis=0))
    for number, box in enumerate(ndimage.find_objects(regions), 1):
        region = regions[box] == number
        middle = (box[1].start + box[1].stop) / 2
        between = columns[0] + np.ptp(columns) / 4 < middle < columns[-1] - np.ptp(columns) / 4
        if between and region.sum() < TRACHEA_AREA * mask.size and region.mean() > ROUND:
            mask[box] &= ~region
    return mask


RULES: dict[str, Rule] = {
    "as published": _published,
    "threshold 0.4": partial(_segmented, threshold=0.4),
    "threshold 0.6": partial(_segmented, threshold=0.6),
    "two largest regions": partial(_segmented, largest=2),
    "three largest regions": partial(_segmented, largest=3),
    "no region under 0.05% of the slice": partial(_without_specks, share=0.0005),
    "no region under 0.2% of the slice": partial(_without_specks, share=0.002),
    "holes filled": _without_holes,
    "nothing outside the body": _inside_body,
    "no small round region in the middle": _without_trachea,
}
"""What is tried, the first as it is."""
