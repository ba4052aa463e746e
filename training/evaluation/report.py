"""One self-contained HTML page about an evaluation: tables, curves and the worst slices."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lungseg.core.preprocess import IntensityRule, to_grey
from lungseg.inference.model import Model
from training.data.dataset import read_sample
from training.data.sheet import IGNORED, PREDICTION, TRUTH, Tile, contact_sheet
from training.evaluation.evaluate import (
    DISTANCE_NOTE,
    SUMMARY_METRICS,
    SliceResult,
    Summary,
    predict,
    summarise_by,
    worst,
)
from training.evaluation.metrics import Calibration

PLOT_SIZE = 280
_STYLE = """body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td,th{padding:.2em .7em;border-bottom:1px solid #ccc;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%}svg{margin-right:2em}"""


def write_report(
    model: Model, results: Sequence[SliceResult], summaries: Sequence[Summary], path: Path
) -> None:
    """Writes the page.

    Args:
        model: what was evaluated; it draws the worst slices again.
        results: every slice.
        summaries: rows of the first table.
        path: the file to write; it needs no other file and no network.
    """
    contract = model.contract
    total = sum((result.calibration for result in results[1:]), results[0].calibration)
    patients = summarise_by(results, lambda item: f"{item.pair.source}/{item.pair.patient}")
    dice = [result.metrics.dice for result in results]
    parts = [
        f"<h1>{contract.name} version {contract.version}</h1>",
        f"<p>SHA-256 <code>{contract.sha256}</code>; {html.escape(contract.license)}.</p>",
        f"<p>{html.escape(DISTANCE_NOTE)}</p>",
        _table(summaries),
        "<h2>Curves</h2>",
        _plot("reliability: share of lung by probability", _reliability(total)),
        _plot("share of slices up to a Dice", _cumulative(dice)),
        "<h2>Worst slices</h2><p>Truth green, prediction orange, ignored blue.</p>",
        _image(_worst_sheet(model, results)),
        "<h2>Patients</h2>",
        _table(patients),
    ]
    path.write_text(
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<title>{contract.name} {contract.version}</title><style>{_STYLE}</style>"
        + "\n".join(parts)
    )


def _table(summaries: Sequence[Summary]) -> str:
    head = (
        "group",
        "slices",
        "95% interval",
        "p5",
        "min",
        *SUMMARY_METRICS,
        "unit",
        "missed",
        "invented",
        "ECE",
        "FP area",
    )
    rows = [
        (
            html.escape(item.group),
            str(item.slices),
            f"{item.interval[0]:.4f}–{item.interval[1]:.4f}",
            _number(item.p5),
            _number(item.minimum),
            *(_number(item.means[name]) for name in SUMMARY_METRICS),
            *(item.unit, str(item.missed), str(item.invented)),
            _number(item.calibration_error),
            _number(item.false_positive_fraction),
        )
        for item in summaries
    ]
    lines = ["<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return "<table>" + "".join(lines) + "</table>"


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.4f}"


def _reliability(total: Calibration) -> list[tuple[float, float]]:
    """Mean probability against share of lung, for the bins that hold pixels."""
    seen = total.pixels > 0
    probability = total.probability[seen] / total.pixels[seen]
    return list(zip(probability, total.lung[seen] / total.pixels[seen], strict=True))


def _cumulative(dice: Sequence[float]) -> list[tuple[float, float]]:
    ordered = np.sort(dice)
    return [(float(value), (rank + 1) / len(ordered)) for rank, value in enumerate(ordered)]


def _plot(title: str, points: Sequence[tuple[float, float]]) -> str:
    """An SVG line over the unit square with its diagonal."""
    size = PLOT_SIZE
    line = " ".join(f"{x * size:.1f},{(1 - y) * size:.1f}" for x, y in points)
    return (
        f"<svg width='{size}' height='{size + 24}' viewBox='0 -2 {size} {size + 26}'>"
        f"<rect width='{size}' height='{size}' fill='none' stroke='#999'/>"
        f"<path d='M0 {size}L{size} 0' stroke='#ccc'/>"
        f"<polyline points='{line}' fill='none' stroke='#0072b2' stroke-width='2'/>"
        f"<text x='0' y='{size + 18}'>{html.escape(title)}</text></svg>"
    )


def _worst_sheet(model: Model, results: Sequence[SliceResult]) -> Image.Image:
    tiles: list[Tile] = []
    for result in worst(results):
        sample = read_sample(result.pair)
        found = predict(model, sample.scan).mask[0]
        grey = to_grey(sample.scan.values[0], sample.scan.unit, IntensityRule())
        title = f"{result.pair.name} {result.metrics.dice:.3f}"
        outlines = ((sample.ignored, IGNORED), (sample.mask, TRUTH), (found, PREDICTION))
        tiles.append(Tile(grey=grey.astype(np.uint8), title=title, outlines=outlines))
    return contact_sheet(tiles, columns=4)


def _image(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='outlined slices' src='data:image/png;base64,{data}'>"
