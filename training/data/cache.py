"""Slices decoded once, kept on disk under the hash of their content."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lungseg.core.body import Covers, body_box
from lungseg.core.orientation import usual_view, view_spacing
from lungseg.core.preprocess import covered, place
from lungseg.core.resample import resample
from training.data.clean import suspect
from training.data.dataset import Pair, Sample, file_hash, read_sample
from training.data.likeness import fingerprint
from training.data.pieces import Piece, as_piece

CACHE_FORMAT = "5"
"""Part of each key of a piece: raise it when what is cached changes."""
RULES_FORMAT = "4"
"""Part of each key of a verdict: raise it when ``training.data.clean`` changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found of a pair.

    Attributes:
        lung: whether the mask holds any.
        code: the rule that the mask breaks, empty for a plausible one.
        reason: one sentence with the figures.
        likeness: the slice's ``training.data.likeness.fingerprint``, its bytes in base64.
    """

    lung: bool
    code: str = ""
    reason: str = ""
    likeness: str = ""

    @property
    def fingerprint(self) -> NDArray[np.float16]:
        """What tells nearly equal slices, shape (48 * 48,)."""
        return np.frombuffer(base64.b64decode(self.likeness), np.float16)


def cache_pieces(
    pairs: Sequence[Pair], grid: int, cache: Path, covers: Covers = "whole"
) -> list[Path]:
    """Decodes pairs onto the grid, unless the cache has them, and returns the cached files.

    Raises:
        DataError: a file can't be read.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(partial(_cached_piece, grid=grid, cache=cache, covers=covers), pairs))


def load_piece(path: Path) -> Piece:
    """Reads one cached slice."""
    hu, lung, body, ignored, airway = np.load(path, allow_pickle=False).astype(np.float32)
    return Piece(hu=hu, lung=lung, body=body, ignored=ignored, airway=airway)


def judge(pair: Pair, cache: Path | None) -> Verdict:
    """What ``training.data.clean`` says of a pair, asked once for each content.

    Args:
        pair: the pair.
        cache: folder to keep verdicts in, None to keep none.

    Raises:
        DataError: a file can't be read.
    """
    if cache is None:
        return _judge(read_sample(pair))
    target = cache / f"{_key(pair, f'verdict {RULES_FORMAT}')}.json"
    if target.exists():
        return Verdict(**json.loads(target.read_text()))
    verdict = _judge(read_sample(pair))
    cache.mkdir(parents=True, exist_ok=True)
    _write(target, json.dumps(asdict(verdict)).encode())
    return verdict


def _judge(sample: Sample) -> Verdict:
    suspicion = suspect(sample.scan.values[0], sample.mask, sample.ignored, unit=sample.scan.unit)
    found = {} if suspicion is None else asdict(suspicion)
    likeness = base64.b64encode(fingerprint(sample.scan.values[0]).tobytes()).decode()
    return Verdict(lung=bool(sample.mask.any()), likeness=likeness, **found)


def _cached_piece(pair: Pair, grid: int, cache: Path, covers: Covers) -> Path:
    target = cache / f"{_key(pair, f'{CACHE_FORMAT} {grid} {covers}')}.npy"
    if not target.exists():
        buffer = io.BytesIO()
        np.save(buffer, _on_grid(pair, grid, covers))
        _write(target, buffer.getvalue())
    return target


def _key(pair: Pair, purpose: str) -> str:
    key = hashlib.sha256(f"{purpose} ".encode())
    for path in (pair.image, pair.mask, *([pair.airway] if pair.airway else [])):
        key.update(file_hash(path))
    if pair.hu_slope is not None:
        key.update(f" slope {pair.hu_slope}".encode())
    if pair.index is not None:
        key.update(f" {pair.index}".encode())
    return key.hexdigest()[:32]


def _write(target: Path, content: bytes) -> None:
    # Written aside and renamed, so that a killed run leaves no half file in the cache.
    with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as part:
        part.write(content)
    Path(part.name).replace(target)


def _on_grid(pair: Pair, grid: int, covers: Covers) -> NDArray[np.float16]:
    """Pseudo-HU and the shares of lung, body, what is ignored and airways, on the grid.

    Turned to the usual view and placed as serving does, by the slice's shape in mm.
    """
    sample = read_sample(pair)
    piece = as_piece(sample)
    view = usual_view(sample.scan)
    given = np.stack([piece.hu, piece.lung, piece.body, piece.ignored, piece.airway])
    shown = np.concatenate([view.apply(plane[None]) for plane in given])
    box = None
    if covers == "body":
        box = body_box(view.apply(sample.scan.values), sample.scan.unit)
    placement = place(shown.shape[1:], (grid, grid), view_spacing(sample.scan, view), box)
    top, left = placement.offset
    height, width = placement.inner_size
    planes = np.zeros((len(shown), grid, grid), np.float16)
    planes[0] = np.float16(piece.hu.min())
    for plane, values in zip(planes, shown, strict=True):
        plane[top : top + height, left : left + width] = resample(
            covered(values, placement), placement.inner_size
        )
    return planes
