"""Makes small mistakes, one at a time and in a copy of the tree, and counts those a test notices.

``python -m tests.mutants --sample 300``, or ``make mutants``. The tests that reach the changed
lines run, quickest first; a mutant that makes them hang is as good as noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import math
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.mutants.choice import Reach, explained, modules, sample
from tests.mutants.reach import OUT
from tests.mutants.sites import Mutant, mutants

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MEMORY_BYTES = 8 << 30
"""A mutant that asks for more than a process may have fails, rather than the machine."""
PATIENCE_S, PATIENCE_FACTOR = 60, 5
"""A hanging mutant is given up after this much, and so many times what its tests usually take."""
POLL_S = 0.02
PYTEST = [
    *("-q", "-p", "no:cacheprovider", "-m"),
    "not container and not ray and not slurm and not label_studio",
]
OURS = {"lungseg", "tests", "training"}


def pytest_in(tree: Path, *arguments: str, patience_s: float = math.inf, out: Path) -> bool:
    """Whether pytest passes in a tree, in a process of its own; what it says is in ``out``.

    It is forked from this one, which has loaded the libraries, and loads what is ours itself.
    """
    until = time.monotonic() + patience_s
    child = os.fork()
    if not child:
        _become_pytest(tree, [*PYTEST, f"--basetemp={tree}.tmp", *arguments], out)
    try:
        while time.monotonic() < until:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status == 0
            time.sleep(POLL_S)
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # what its tests started
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def _become_pytest(tree: Path, arguments: list[str], out: Path) -> NoReturn:
    code: int = pytest.ExitCode.INTERNAL_ERROR
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(tree)
        with out.open("w") as written:
            os.dup2(written.fileno(), 1)
            os.dup2(written.fileno(), 2)
        places = [str(tree), str(tree / "service")]
        os.environ["PYTHONPATH"] = os.pathsep.join(places)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # no test here needs them
        sys.path[:] = [*places, *(place for place in sys.path if ROOT not in _above(place))]
        for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
            del sys.modules[name]
        sys.argv = ["pytest", *arguments]
        code = pytest.main(arguments)
        sys.stdout.flush()
    finally:
        os._exit(code)


def _above(place: str) -> list[Path]:
    path = Path(place).absolute()
    return [] if ".venv" in path.parts else [path, *path.parents]


def copy(files: list[str], tree: Path) -> None:
    """Copies what git knows, and what it does not ignore."""
    for file in files:
        if (ROOT / file).is_file():
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, tree / file)


def measure(files: list[str], watched: list[str], left_out: list[str], tree: Path) -> Reach:
    """Which tests reach what, measured once for each state of the code and kept in ``build``."""
    digest = hashlib.sha256()
    for file in files:
        if file.startswith(("service/", "training/", "tests/")) and (ROOT / file).is_file():
            digest.update(file.encode() + (ROOT / file).read_bytes())
    kept = ROOT / "build" / f"mutants-{digest.hexdigest()[:16]}.json"
    if not kept.exists():
        print("every test runs once, to see which lines it reaches", flush=True)
        out = tree.with_suffix(".json")
        out.with_suffix(".files").write_text(json.dumps([str(tree / file) for file in watched]))
        ignored = [f"--ignore={place}" for place in left_out]
        os.environ[OUT] = str(out)
        said = tree.with_suffix(".out")
        if not pytest_in(tree, "-p", "tests.mutants.reach", *ignored, out=said):
            print(f"{said.read_text()}\nthe tests that failed are left out", flush=True)
        del os.environ[OUT]
        kept.parent.mkdir(exist_ok=True)
        shutil.copy(out, kept)
    return Reach(ROOT, json.loads(kept.read_text()))


def survives(mutant: Mutant, reach: Reach, tree: Path) -> bool:
    """Whether all tests that reach a mutant pass with it."""
    place = tree / mutant.file
    before, times = place.read_text(encoding="utf-8"), place.stat()
    place.write_text(mutant.code(), encoding="utf-8")
    chosen, out = tree.with_suffix(".tests"), tree.with_suffix(".out")
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        for tests, seconds in reach.stages(mutant):
            chosen.write_text("\n".join(tests))
            patience_s = PATIENCE_S + PATIENCE_FACTOR * seconds
            if not pytest_in(tree, "-x", f"@{chosen}", patience_s=patience_s, out=out):
                return False
    finally:
        place.write_text(before, encoding="utf-8")
        os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))
    return True


_shared: list[Any] = []
"""What forked workers find here: the mutants, their tests, and a queue of free trees."""


def _trial(number: int) -> bool:
    chosen, reach, free = _shared
    tree = free.get()
    try:
        return survives(chosen[number], reach, tree)
    finally:
        free.put(tree)


def run(chosen: list[Mutant], reach: Reach, trees: list[Path]) -> list[Mutant]:
    """The mutants that survive."""
    context = multiprocessing.get_context("fork")
    free = context.Queue()
    for tree in trees:
        free.put(tree)
    _shared[:] = (chosen, reach, free)
    survivors: list[Mutant] = []
    with context.Pool(len(trees)) as pool:
        outcomes = pool.imap(_trial, range(len(chosen)))
        for mutant, survived in zip(chosen, outcomes, strict=True):
            print("survived" if survived else "killed", *told(mutant), sep="  ", flush=True)
            survivors += [mutant] if survived else []
    return survivors


def told(mutant: Mutant) -> list[str]:
    """A mutant's place and change, to print."""
    return [f"{mutant.file}:{mutant.lines[0]}", *(f"\n    {line}" for line in mutant.change())]


def report(tried: dict[str, list[Mutant]], survivors: list[Mutant], known: list[Any]) -> float:
    """Prints the survivors with their reasons, and the score of each area and of all."""
    alive = {id(mutant): explained(mutant, known) for mutant in survivors}
    for mutant in survivors:
        print(*told(mutant), f"\n    {alive[id(mutant)] or 'no reason is known'}")
    score = 0.0
    for area, among in (tried | {"total": list(chain.from_iterable(tried.values()))}).items():
        left = [alive[id(one)] for one in among if id(one) in alive]
        score = 1 - len(left) / len(among)
        print(
            f"{area:10} {len(among) - len(left):5} of {len(among):5} killed, {score:6.1%};"
            f" {len(left)} survived, {sum(map(bool, left))} of them for a known reason"
        )
    return score


def main() -> int:
    """Says 0 where enough mutants are noticed."""
    config = tomllib.loads((HERE / "areas.toml").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--sample", default="300", help="how many mutants, or: all")
    parser.add_argument("--seed", default="0", help="which sample")
    parser.add_argument("--area", choices=config["areas"], help="only this one")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, resource.RLIM_INFINITY))
    areas = modules(ROOT, config["areas"])
    found = {
        area: [one for file in files for one in mutants(file, (ROOT / file).read_text("utf-8"))]
        for area, files in areas.items()
        if asked.area in (None, area)
    }
    tried = sample(found, asked.sample, asked.seed)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.check_output(listed, cwd=ROOT, text=True).rstrip("\0").split("\0")
    importlib.import_module("tests.conftest")  # and so all libraries, once for all mutants
    with tempfile.TemporaryDirectory(prefix="lungseg-mutants-") as folder:
        trees = [Path(folder) / str(number) for number in range(asked.workers)]
        copy(files, trees[0])
        watched = list(chain.from_iterable(areas.values()))
        reach = measure(files, watched, config["left_out"], trees[0])
        for tree in trees[1:]:
            shutil.copytree(trees[0], tree)
        controls = [replace(one, new=one.old) for some in tried.values() for one in some[:2]]
        if len(run(controls, reach, trees)) < len(controls):
            sys.exit("tests fail where there is no mistake: nothing can be said")
        survivors = run(list(chain.from_iterable(tried.values())), reach, trees)
    return int(report(tried, survivors, config.get("known", [])) < config["least_score"])


if __name__ == "__main__":
    sys.exit(main())
