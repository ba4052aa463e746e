"""Whether an answer knows when it may be wrong: which slices its flags name, bad ones and good.

Bad are slices with a Dice below 0.9 or with a lung that was lost, of whatever size.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.evaluation.evaluate import SliceResult, markdown_table

BAD_DICE = 0.9
"""Below this a mask is not to be used as it is."""
DOUBTS = ("low_confidence", "air_unlabelled", "outside_body")
"""Flags that say that the mask may be wrong; the others say what the slice or the mask is like."""


def format_doubts(results: Sequence[SliceResult]) -> str:
    """How many bad and good slices carry each flag of doubt, as GitHub-flavoured Markdown."""
    bad = [item for item in results if item.lost or item.metrics.dice < BAD_DICE]
    good = [item for item in results if not (item.lost or item.metrics.dice < BAD_DICE)]
    rows = [(name, _share(bad, {name}), _share(good, {name})) for name in DOUBTS]
    rows.append(("any of them", _share(bad, set(DOUBTS)), _share(good, set(DOUBTS))))
    head = ("flag", f"bad slices (Dice < {BAD_DICE:g}, or a lung lost)", "good slices")
    return markdown_table(head, rows)


def _share(items: Sequence[SliceResult], codes: set[str]) -> str:
    flagged = sum(bool(item.flags & codes) for item in items)
    return f"{flagged} of {len(items)} ({flagged / len(items):.1%})" if items else "–"
