"""Small slices take turns in the stages that Python computes; nobody else waits for them."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from lungseg.core.types import Scan
from lungseg.inference.timing import Stopwatch
from lungseg.inference.turns import LARGEST, Turns
from tests.serving import PATIENCE_S


def scan(pixels: int) -> Scan:
    return Scan(values=np.zeros((1, 1, pixels), np.int16), unit="HU", media_type="image/png")


@pytest.mark.parametrize(
    ("turns", "pixels", "waits"),
    [
        (Turns(1), LARGEST, True),
        (Turns(1), LARGEST + 1, False),
        (Turns(2), 1, False),
        (Turns(), 1, False),
        (Turns.among(1), 1, True),
        (Turns.among(3), 1, True),
        (Turns.among(4), 1, False),
    ],
)
def test_who_wants_a_turn_waits_until_one_is_free(turns: Turns, pixels: int, waits: bool) -> None:
    """A second thread comes in beside the first one, or when that has left."""
    inside, watch = threading.Event(), Stopwatch()

    def second() -> None:
        with turns.taken(scan(pixels), watch):
            inside.set()

    other = threading.Thread(target=second)
    with turns.taken(scan(1), Stopwatch()):
        other.start()
        assert inside.wait(0.05 if waits else PATIENCE_S) is not waits
    assert inside.wait(PATIENCE_S)
    other.join()
    assert watch.spent_ms.get("queue", 0.0) > 0 or not waits


def test_a_turn_is_given_back_whatever_happens() -> None:
    """An error in a stage leaves the turn to the next."""
    turns = Turns(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), turns.taken(scan(1), Stopwatch()):
            raise ZeroDivisionError
