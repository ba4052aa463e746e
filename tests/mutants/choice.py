"""Which mutants are tried, with which tests, and which survivors have a reason."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from tests.mutants.sites import Mutant

STAGES_S = (5.0, 60.0)
"""Seconds of tests, quickest and nearest first: after the first few nearly all mutants are noticed,
and one that the second lot does not notice either has survived."""
FARTHER = 4.0
"""A test of the module's own part is worth waiting for so many times as long as another."""


def modules(root: Path, areas: dict[str, list[str]]) -> dict[str, list[str]]:
    """The files of each area, whose patterns must all mean something."""
    found: dict[str, list[str]] = {}
    for area, patterns in areas.items():
        for pattern in patterns:
            files = sorted(root.glob(pattern))
            if not files:
                raise ValueError(f"expected modules at {pattern}, found none")
            found.setdefault(area, []).extend(str(file.relative_to(root)) for file in files)
    return found


def sample(found: dict[str, list[Mutant]], count: str, seed: str) -> dict[str, list[Mutant]]:
    """As many of each area, at most one for a statement; always the same for a seed."""
    if count == "all":
        return found
    chosen: dict[str, list[Mutant]] = {}
    for area, mutants in found.items():
        chance = random.Random(f"{seed} {area}")
        statements: dict[object, list[Mutant]] = defaultdict(list)
        for mutant in mutants:
            statements[mutant.file, mutant.lines].append(mutant)
        share = min(len(statements), round(int(count) / len(found)))
        chosen[area] = [
            chance.choice(one) for one in chance.sample(list(statements.values()), share)
        ]
    return chosen


def explained(mutant: Mutant, known: list[dict[str, str]]) -> str | None:
    """The reason for which this one is known to survive: by the text of its lines."""
    change = mutant.change()
    for entry in known:
        if entry["file"] == mutant.file and entry["change"].splitlines() == change:
            return entry["reason"]
    return None


class Reach:
    """Which tests reach which lines, as ``tests.mutants.reach`` wrote it down."""

    def __init__(self, root: Path, measured: dict[str, Any]) -> None:
        self._root = root
        self._seconds = list(measured["seconds"].items())
        self._lines: dict[str, dict[str, list[int]]] = measured["lines"]

    def stages(self, mutant: Mutant) -> Iterator[tuple[list[str], float]]:
        """Tests to run together, and how long they take."""
        near = f"tests/{_part(mutant.file)}/"

        def price(test: int) -> float:
            name, seconds = self._seconds[test]
            return seconds if name.startswith(near) else FARTHER * seconds

        waiting = sorted(self.tests(mutant), key=price)
        for limit_s in STAGES_S:
            stage: list[int] = []
            seconds = 0.0
            while waiting and (not stage or seconds + self._seconds[waiting[0]][1] <= limit_s):
                seconds += self._seconds[waiting[0]][1]
                stage.append(waiting.pop(0))
            if stage:
                yield [self._seconds[one][0] for one in sorted(stage)], seconds

    def tests(self, mutant: Mutant) -> set[int]:
        """Those that reach the statement, else its function; of what runs at import, its users."""
        if mutant.function:
            own = self._lines.get(mutant.file, {})
            found = _among(own, mutant.lines) or _among(own, mutant.function)
        else:
            found = self._users(mutant)
        near = f"tests/{_part(mutant.file)}/"
        return found or self._in_files(lambda file: file.startswith(near))

    def _users(self, mutant: Mutant) -> set[int]:
        """All tests that reach, or are, a module with the name of what is changed."""
        word = re.compile(rf"\b{mutant.name}\b") if mutant.name else re.compile(r"\A\Z")

        def names_it(file: str) -> bool:
            return bool(word.search((self._root / file).read_text(encoding="utf-8")))

        files = {mutant.file} | {file for file in self._lines if names_it(file)}
        reached = (self._lines.get(file, {}).values() for file in files)
        return self._in_files(names_it) | set(chain.from_iterable(chain.from_iterable(reached)))

    def _in_files(self, wanted: Any) -> set[int]:
        files = {name.partition("::")[0] for name, _ in self._seconds}
        chosen = {file for file in files if wanted(file)}
        return {i for i, (name, _) in enumerate(self._seconds) if name.partition("::")[0] in chosen}


def _part(file: str) -> str:
    """The part of the project whose tests stand in a folder of that name."""
    return file.removeprefix("service/lungseg/").partition("/")[0]


def _among(lines: dict[str, list[int]], span: tuple[int, int]) -> set[int]:
    return {test for line in range(span[0], span[1] + 1) for test in lines.get(str(line), ())}
