"""Makes small mistakes, one at a time and in a copy of the tree, and counts those a test notices.

``python -m tests.mutants --sample 300``, or ``make mutants``. The tests that reach the changed
lines run, quickest first; a mutant that makes them hang is as good as noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.mutants.choice import Reach, explained, modules, sample
from tests.mutants.reach import OUT
from tests.mutants.sites import Mutant, mutants

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MEMORY_BYTES = 8 << 30
"""A mutant that asks for more than a process may have fails, rather than the machine."""
PATIENCE_S, PATIENCE_FACTOR = 60, 5
"""A hanging mutant is given up after this much, and so many times what its tests usually take."""
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not container"]
_running: set[subprocess.Popen[str]] = set()


def pytest(tree: Path, *arguments: str, patience_s: float | None = None, **more: str) -> str | None:
    """What pytest says in a tree; None where all tests pass."""
    environment = os.environ | {
        "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'service'}",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # no test here needs them: half of the start
        **more,
    }
    process = subprocess.Popen(
        [*PYTEST, f"--basetemp={tree}.tmp", *arguments],
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    _running.add(process)
    try:
        said, _ = process.communicate(timeout=patience_s)
    except subprocess.TimeoutExpired:
        said = "late"
    finally:
        end(process)
    return said if process.returncode else None


def end(process: subprocess.Popen[str]) -> None:
    """Ends pytest and what its tests started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _running.discard(process)


def copy(files: list[str], tree: Path) -> None:
    """Copies what git knows, and what it does not ignore."""
    for file in files:
        if (ROOT / file).is_file():
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, tree / file)


def measure(files: list[str], watched: list[str], tree: Path) -> Reach:
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
        failed = pytest(tree, "-p", "tests.mutants.reach", **{OUT: str(out)})
        if failed:
            print(f"{failed}\nthe tests that failed are left out", flush=True)
        kept.parent.mkdir(exist_ok=True)
        shutil.copy(out, kept)
    return Reach(ROOT, json.loads(kept.read_text()))


def survives(mutant: Mutant, reach: Reach, tree: Path) -> bool:
    """Whether all tests that reach a mutant pass with it."""
    place = tree / mutant.file
    before, times = place.read_text(encoding="utf-8"), place.stat()
    place.write_text(mutant.code(), encoding="utf-8")
    chosen = tree.with_suffix(".tests")
    try:
        for tests, seconds in reach.stages(mutant):
            chosen.write_text("\n".join(tests))
            patience_s = PATIENCE_S + PATIENCE_FACTOR * seconds
            if pytest(tree, "-x", f"@{chosen}", patience_s=patience_s, PYTHONDONTWRITEBYTECODE="1"):
                return False
    finally:
        place.write_text(before, encoding="utf-8")
        os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))
    return True


def run(chosen: list[Mutant], reach: Reach, trees: list[Path]) -> list[Mutant]:
    """The mutants that survive."""
    free: queue.Queue[Path] = queue.Queue()
    for tree in trees:
        free.put(tree)

    def trial(mutant: Mutant) -> bool:
        tree = free.get()
        try:
            survived = survives(mutant, reach, tree)
        finally:
            free.put(tree)
        word = "survived" if survived else "killed"
        print(
            f"{word:8} {mutant.file}:{mutant.lines[0]}", *mutant.change(), sep="\n    ", flush=True
        )
        return survived

    with ThreadPoolExecutor(len(trees)) as pool:
        try:
            outcomes = list(pool.map(trial, chosen))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(_running):
                end(process)
            raise
    return [mutant for mutant, survived in zip(chosen, outcomes, strict=True) if survived]


def report(tried: dict[str, list[Mutant]], survivors: list[Mutant], known: list[Any]) -> float:
    """Prints the score of each area and of all, and the survivors with their reasons."""
    alive = {id(mutant) for mutant in survivors}
    for mutant in survivors:
        reason = explained(mutant, known) or "no reason is known"
        print(f"{mutant.file}:{mutant.lines[0]}: {reason}", *mutant.change(), sep="\n    ")
    tried = tried | {"total": [one for area in tried.values() for one in area]}
    score = 0.0
    for area, among in tried.items():
        left = [one for one in among if id(one) in alive]
        reasons = sum(bool(explained(one, known)) for one in left)
        score = 1 - len(left) / max(1, len(among))
        print(
            f"{area:10} {len(among) - len(left):5} of {len(among):5} killed, {score:6.1%};"
            f" {len(left)} survived, {reasons} of them for a known reason"
        )
    return score


def main() -> int:
    """Says 0 where enough mutants are noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--sample", default="300", help="how many mutants, or: all")
    parser.add_argument("--seed", default="0", help="which sample")
    parser.add_argument("--area", default="", help="only this one")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, resource.RLIM_INFINITY))
    config = tomllib.loads((HERE / "areas.toml").read_text(encoding="utf-8"))
    areas = modules(ROOT, config["areas"])
    found = {
        area: [one for file in files for one in mutants(file, (ROOT / file).read_text("utf-8"))]
        for area, files in areas.items()
        if asked.area in ("", area)
    }
    tried = sample(found, asked.sample, asked.seed)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.check_output(listed, cwd=ROOT, text=True).rstrip("\0").split("\0")
    with tempfile.TemporaryDirectory(prefix="lungseg-mutants-") as folder:
        trees = [Path(folder) / str(number) for number in range(asked.workers)]
        copy(files, trees[0])
        reach = measure(files, [file for area in areas.values() for file in area], trees[0])
        for tree in trees[1:]:
            shutil.copytree(trees[0], tree)
        survivors = run([one for area in tried.values() for one in area], reach, trees)
    score = report(tried, survivors, config.get("known", []))
    return int(score < config["least_score"])


if __name__ == "__main__":
    sys.exit(main())
