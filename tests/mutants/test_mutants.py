"""What ``make mutants`` does before it runs a test: the mistakes, the sample and the tests."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from tests.mutants.choice import Reach, explained, modules, sample
from tests.mutants.sites import mutants

ROOT = Path(__file__).parents[2]
CONFIG = tomllib.loads((ROOT / "tests/mutants/areas.toml").read_text(encoding="utf-8"))
MODULE = '''"""Words: 1 < 2."""

__all__ = ["LIMIT", "check"]
LIMIT = 5
Pair = tuple[int, int]


def check(value: int, least: int = 0) -> bool:
    """Whether 1 < 2."""
    if value > LIMIT:
        raise ValueError("expected less than 5 of them", value)
    log(f"{value + 1} seen")
    if max(value, least) is least:
        return None
    return least < value
'''


def changes(code: str = MODULE) -> set[str]:
    return {" ".join(one.change()) for one in mutants("module.py", code)}


def test_mistakes_are_small_and_never_in_words_or_types() -> None:
    """Each leaves a module that can be read, and changes what it does."""
    made = mutants("module.py", MODULE)
    for one in made:
        assert ast.dump(ast.parse(one.code())) != ast.dump(ast.parse(MODULE))
    head = "def check(value: int, least: int = 0) -> bool:"
    said = 'raise ValueError("expected less than 5 of them", value)'
    condition = "if max(value, least) is least:"
    assert changes() == {
        "-LIMIT = 5 +LIMIT = None",
        "-LIMIT = 5 +LIMIT = 6",
        f"-{head} +{head.replace('0', '1')}",
        "-if value > LIMIT: +if not (value > LIMIT):",
        "-if value > LIMIT: +if value >= LIMIT:",
        f"-{said} +pass",
        f"-{said} +{said.replace('value', 'None')}",
        f"-{said} +{said.replace(', value', ', ')}",
        '-log(f"{value + 1} seen") +pass',
        f"-{condition} +if not (max(value, least) is least):",
        f"-{condition} +{condition.replace('is', 'is not')}",
        f"-{condition} +{condition.replace('value', 'None')}",
        f"-{condition} +{condition.replace('value, ', '')}",
        f"-{condition} +{condition.replace('least)', 'None)')}",
        f"-{condition} +{condition.replace('least)', ')')}",
        "-return least < value +return None",
        "-return least < value +return least <= value",
    }


def test_a_sample_is_the_same_for_a_seed_and_fair_to_areas() -> None:
    """Each area gives as many, never two of one statement."""
    found = {"one": mutants("a.py", MODULE), "other": mutants("b.py", MODULE)}
    chosen = sample(found, "6", "0")
    again = sample(found, "6", "0")
    assert [one.change() for one in chosen["one"]] == [one.change() for one in again["one"]]
    assert {area: len({one.lines for one in some}) for area, some in chosen.items()} == {
        "one": 3,
        "other": 3,
    }
    assert sample(found, "all", "0") == found
    assert any(
        [one.change() for one in sample(found, "6", str(seed))["one"]]
        != [one.change() for one in chosen["one"]]
        for seed in range(1, 9)
    )


def test_a_mutant_gets_the_tests_that_reach_it(tmp_path: Path) -> None:
    """Those of its statement, quickest first; those of its users for a constant."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "module.py").write_text(MODULE)
    (tmp_path / "user.py").write_text("from module import LIMIT")
    (tmp_path / "tests/test_x.py").write_text("")
    (tmp_path / "tests/test_y.py").write_text("from module import LIMIT")
    seconds = {"tests/test_x.py::slow": 9, "tests/test_x.py::quick": 1, "tests/test_x.py::off": 1}
    seconds |= {"tests/test_y.py::own": 1, "tests/test_x.py::endless": 99}
    lines = {"module.py": {"10": [0, 1, 4], "13": [1]}, "user.py": {"1": [2]}}
    reach = Reach(tmp_path, {"seconds": seconds, "lines": lines})
    first = {one.lines[0]: one for one in mutants("module.py", MODULE)}
    assert [tests for tests, _ in reach.stages(first[10])] == [
        ["tests/test_x.py::quick"],
        ["tests/test_x.py::slow"],
    ]
    assert reach.tests(first[13]) == {1}
    assert reach.tests(first[12]) == {0, 1, 4}  # no test was seen there: those of its function
    assert reach.tests(first[4]) == {0, 1, 2, 3, 4}


def test_known_survivors_are_still_there() -> None:
    """Each pattern finds modules; each survivor with a reason is a mutant of today's code."""
    files = {file for some in modules(ROOT, CONFIG["areas"]).values() for file in some}
    for entry in CONFIG.get("known", []):
        assert entry["file"] in files
        assert entry["reason"].strip()
        removed = [line[1:] for line in entry["change"].splitlines() if line.startswith("-")]
        present = {line.strip() for line in (ROOT / entry["file"]).read_text("utf-8").splitlines()}
        assert present.issuperset(removed), entry
    made = mutants("module.py", MODULE)[0]
    known = {"file": "module.py", "change": "\n".join(made.change()), "reason": "none"}
    assert explained(made, [known]) == "none"
    assert explained(made, [known | {"file": "other.py"}]) is None
