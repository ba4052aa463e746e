"""``lungseg cohort`` as a user runs it: killed, interrupted, in parts, and again."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import BinaryIO

import nibabel
import numpy as np
import psutil
import pytest

from lungseg.cli import main
from lungseg.formats.table import VOLUMES
from lungseg.integrations.cohort.crew import work_through
from tests.client.conftest import environment_of
from tests.client.studies import study
from tests.client.test_client import Scripted
from tests.serving import PATIENCE_S, Running, wait_until
from tests.volume.grids import affine_of, chest, nifti

SIZE = 4, 40, 48
STUDIES = 200
LONG_S = 6 * PATIENCE_S  # as long as Ray may take to start
LOST = "worker_lost", "two workers have ended over it: they were killed, or out of memory"
BROKEN = {"text": b"no volume", "missing": b"", "cut": nifti(chest(SIZE), affine_of())[:2000]}


NEEDS_RAY = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: make ray")


class Cohort:
    """A folder with an index of small studies, and with what comes of them."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capfd = folder, capfd
        self.out = folder / "out"
        self.studies: dict[str, str] = {}

    def add(self, name: str, content: bytes | None) -> Path:
        """A study of that content; None for a pipe."""
        path = self.folder / f"{name}.nii"
        self.studies[name] = path.name
        if content is None:
            os.mkfifo(path)
        elif content:
            path.write_bytes(content)
        return path

    def command(self, *more: object) -> list[str]:
        index = self.folder / "index.csv"
        rows = [("study", "path"), *self.studies.items()]
        index.write_text("".join(f"{','.join(row)}\n" for row in rows))
        options = ("--unit", "hu", *(() if "--workers" in more else ("--workers", "2")))
        return ["cohort", str(index), "--out", str(self.out), *options, *map(str, more)]

    def run(self, *more: object) -> tuple[int, str]:
        """The exit code, and what is said; the workers are processes of their own."""
        return self.main(self.command(*more))

    def main(self, command: list[str]) -> tuple[int, str]:
        self._capfd.readouterr()
        try:
            code = main(command)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        return code, self._capfd.readouterr().err

    @contextmanager
    def started(self, *more: object) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "lungseg", *self.command(*more)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.kill()

    def files(self, end: str) -> dict[str, int]:
        """Files of the results by what they are called before the digest, with their times."""
        found = [path for path in self.out.glob("*") if path.name.endswith(end)]
        names = {path.name.rpartition("-")[0]: path.stat().st_mtime_ns for path in found}
        assert len(names) == len(found)
        return names

    def rows(self) -> dict[str, dict[str, str]]:
        """Those of the tables, one for each study."""
        rows = list[dict[str, str]]()
        for table in self.out.glob("statistics*"):
            if table.suffix == ".csv":
                with table.open(newline="") as stream:
                    rows += csv.DictReader(stream)
            else:
                rows += pytest.importorskip("pyarrow.parquet").read_table(table).to_pylist()
        named = {row["filename"]: row for row in rows}
        assert len(named) == len(rows)
        return named

    def failures(self) -> dict[str, tuple[str, str]]:
        rows = self.rows().items()
        return {name: (row["error"], row["reason"]) for name, row in rows if row["error"]}


@pytest.fixture
def cohort(
    tmp_path: Path,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Cohort:
    for name, value in environment_of(models).items():
        monkeypatch.setenv(name, value)
    return Cohort(tmp_path, capfd)


def phantom(seed: int = 0) -> bytes:
    return nifti(chest(SIZE, seed), affine_of())


@contextmanager
def fed(pipe: Path) -> Iterator[BinaryIO]:
    """The pipe for writing, once a worker reads it; while it is open its reader waits."""
    found: list[int] = []

    def look() -> bool:
        with suppress(OSError):  # nobody reads yet
            found.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(found)

    wait_until(look, LONG_S)
    os.set_blocking(found[0], True)
    with os.fdopen(found[0], "wb") as stream:
        yield stream


def reader_of(pipe: Path) -> psutil.Process:
    """The worker that has a pipe in hand, which the pipe's writer waits for."""
    found: list[psutil.Process] = []

    def look() -> bool:
        for worker in psutil.process_iter():
            files = Path(f"/proc/{worker.pid}/fd")
            with suppress(OSError):
                holds = any(file.readlink() == pipe for file in files.iterdir())
                found.extend([worker] if holds and worker.pid != os.getpid() else [])
        return bool(found)

    wait_until(look, LONG_S)
    return found[0]


def kill_reader(pipe: Path) -> None:
    """And wait until it holds the pipe no more: what is written next is for another."""
    with fed(pipe):
        reader = reader_of(pipe)
        reader.kill()
        reader.wait(LONG_S)


def test_killed_workers_lose_the_study_in_hand_and_no_other(cohort: Cohort) -> None:
    """A study whose worker was killed is tried once more; each has one result or one reason."""
    once, twice = cohort.add("once", None), cohort.add("twice", None)
    for number in range(STUDIES - 5):
        cohort.add(f"s{number:03}", phantom(number))
    for name, content in BROKEN.items():
        cohort.add(name, content)
    with cohort.started() as command:
        kill_reader(once)
        kill_reader(twice)
        with fed(once) as stream:
            stream.write(phantom())
        kill_reader(twice)
        said = command.communicate(timeout=LONG_S)[1]
    assert command.returncode == 1, said
    good = {"once", *(name for name in cohort.studies if name.startswith("s"))}
    assert cohort.files("_mask.nii.gz").keys() == good
    assert cohort.files(".done.json").keys() == cohort.rows().keys() == cohort.studies.keys()
    failed = cohort.failures()
    assert failed.keys() == cohort.studies.keys() - good == {"twice", "text", "missing", "cut"}
    assert failed["twice"] == LOST
    assert failed["missing"][0] == "unreadable"
    for name, (_, reason) in failed.items():
        assert f"{name}: {reason}\n" in said.decode()
    before = {path: path.stat().st_mtime_ns for path in cohort.out.glob("s*")}
    done = f"lungseg: {STUDIES} of {STUDIES} studies are done already\n"
    assert cohort.run() == (1, done)
    statistics = [path for path in before if path.name.startswith("statistics")]
    assert len(statistics) == 1
    assert all(
        path.stat().st_mtime_ns == when for path, when in before.items() if path not in statistics
    )
    assert cohort.failures() == failed


def test_an_end_leaves_what_the_same_command_goes_on_with(cohort: Cohort) -> None:
    """Schedulers announce an end by SIGTERM, of which no worker hears; tables are whole then."""
    cohort.add("first", phantom())
    pipe = cohort.add("pipe", None)
    with cohort.started() as command, fed(pipe):
        wait_until(lambda: cohort.files(".done.json"))
        worker = reader_of(pipe)
        for one in psutil.Process(command.pid).children():
            status = Path(f"/proc/{one.pid}/status").read_text()
            blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
            spared = all(blocked >> number - 1 & 1 for number in (signal.SIGINT, signal.SIGTERM))
            assert spared or "spawn_main" not in " ".join(one.cmdline())
        command.terminate()
        said = command.communicate(timeout=LONG_S)[1]
    assert command.returncode == 130
    assert b"lungseg: interrupted\n" in said
    worker.wait(PATIENCE_S)
    assert cohort.rows().keys() == {"first"}
    pipe.unlink()
    cohort.add("pipe", phantom(1))
    assert cohort.failures() == {}
    assert cohort.run()[0] == 0
    assert cohort.files("_mask.nii.gz").keys() == {"first", "pipe"}


def test_nobody_is_hired_when_all_is_at_an_end() -> None:
    """Where Ray has shut down, a call for another actor ends the process at once."""
    hired, dying, ended = list[int](), Event(), Event()

    def hire() -> Callable[[str], str]:
        hired.append(1)
        return work

    def work(task: str) -> str:
        if task == "dies":
            dying.set()
            ended.wait(PATIENCE_S)
            raise BrokenExecutor
        return task

    before = threading.active_count()
    results = work_through(["lives", "dies"], (hire, BrokenExecutor), 2)
    assert next(results) == "lives"
    assert dying.wait(PATIENCE_S)
    hired.clear()
    results.close()
    ended.set()
    wait_until(lambda: threading.active_count() == before)
    assert hired == []


def test_a_killed_command_leaves_no_worker(cohort: Cohort) -> None:
    """They go with it, whatever they have in hand."""
    pipe = cohort.add("pipe", None)
    with cohort.started() as command, fed(pipe):
        workers = psutil.Process(command.pid).children(recursive=True)
        assert reader_of(pipe) in workers
        command.kill()
        assert not psutil.wait_procs(workers, PATIENCE_S)[1]
    assert not cohort.files(".done.json")


def test_other_parameters_do_not_meet(cohort: Cohort) -> None:
    """Results of one folder are told apart by what they were made of; parts are parts of rows."""
    for number in range(3):
        cohort.add(f"s{number}", phantom(number))
    assert cohort.run("--shard", "1/2", "--workers", "1")[0] == 0
    assert cohort.files("_mask.nii.gz").keys() == {"s1"}
    assert cohort.rows().keys() == {"s1"}
    assert cohort.run("--threshold", "0.9", "-q") == (0, "")
    names = sorted(path.name.partition("-")[0] for path in cohort.out.glob("*_mask.nii.gz"))
    assert names == ["s0", "s1", "s1", "s2"]


def test_here_and_there_are_the_same(cohort: Cohort, service: Running) -> None:
    """DICOM too, whoever computes, in every form."""
    study(cohort.folder / "dicom")
    cohort.add("other", phantom())
    cohort.studies["dicom"] = "dicom"
    forms = ("--format", "nifti,npz")
    assert cohort.run(*forms)[0] == 0
    here = {path.name: path.read_bytes() for path in cohort.out.glob("*")}
    cohort.out = cohort.folder / "there"
    assert cohort.run(*forms, "--url", service.url)[0] == 0
    assert {path.name: path.read_bytes() for path in cohort.out.glob("*")} == here
    mask = next(cohort.out.glob("dicom-*_mask.nii.gz"))
    assert nibabel.load(mask).get_fdata().any()
    row = json.loads(next(cohort.out.glob("dicom-*.done.json")).read_bytes())
    assert tuple(row) == (*VOLUMES.columns, "reason")
    assert row["result"].split("; ")[0] == mask.name


def test_memory_is_bounded_by_the_shell(cohort: Cohort) -> None:
    """A study that needs more than a worker may take is a row, and the next one is computed."""
    cohort.add("large", nifti(np.zeros((300, 512, 512), np.int16), affine_of()))
    cohort.add("small", phantom())
    words = [sys.executable, "-m", "lungseg", *cohort.command("--workers", "1")]
    bounded = ["sh", "-c", 'ulimit -d 409600; exec "$@"', "cohort", *words]
    assert subprocess.run(bounded, check=False, stderr=subprocess.DEVNULL).returncode == 1
    reason = "the file cannot be read: it is larger than the memory"
    assert cohort.failures() == {"large": ("unreadable", reason)}


def test_a_busy_server_takes_each_study_in_the_end(cohort: Cohort, service: Running) -> None:
    """What it has no place for comes again after the others, until it takes none of the rest."""
    for name in ("a", "b", "c"):
        cohort.add(name, phantom())
    hour = {"Retry-After": "3600"}
    full = 503, hour, b'{"code": "overloaded", "detail": "the queue is full"}'
    many = 429, hour, b'{"code": "rate_limited", "detail": "more requests than one may send"}'
    asked = {"params": {"format": "nifti"}, "headers": {"Accept": "application/x-ndjson"}}
    done = service.client.post("/segment/volume", content=phantom(), **asked)
    good, models = (200, {}, done.content), service.client.get("/models").content
    options = ("--workers", "1", "--url")
    with Scripted(full, many, good, full, full, seen=models) as server:
        assert cohort.run(*options, server.url)[0] == 1
        assert len(server.paths) == 5
    assert cohort.rows().keys() == cohort.files(".done.json").keys() == {"c"}
    with Scripted(many, good, good, seen=models) as server:
        assert cohort.run(*options, server.url)[0] == 0
        assert len(server.paths) == 3
    assert cohort.files("_mask.nii.gz").keys() == {"a", "b", "c"}


def test_what_failed_may_be_tried_again(cohort: Cohort) -> None:
    """The rest is left alone."""
    cohort.add("bad", b"no volume")
    cohort.add("good", phantom())
    assert cohort.run()[0] == 1
    before = cohort.files(".done.json")
    cohort.add("bad", phantom())
    assert cohort.run("--retry-failed")[0] == 0
    after = cohort.files(".done.json")
    assert (after["bad"] > before["bad"], after["good"]) == (True, before["good"])


def test_an_index_is_as_spreadsheets_save_it(cohort: Cohort) -> None:
    """With their mark, separators and ends of lines, and with rows that were emptied."""
    cohort.add("good", phantom())
    command = cohort.command()
    text = '\ufeffstudy;note;path\r\n"Ä, 1";;good.nii\r\n;;\r\n\r\n;;\r\n'
    (cohort.folder / "index.csv").write_text(text, encoding="utf-8")
    assert cohort.main(command) == (0, "")
    assert cohort.rows().keys() == {"Ä, 1"}


def test_workers_that_run_elsewhere_find_relative_paths(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray's do, whose nodes were started in other folders: they are sent whole paths."""
    monkeypatch.chdir(cohort.folder)
    cohort.add("missing", b"")
    _, _, _, _, *options = cohort.command()
    assert cohort.main(["cohort", "index.csv", "--out", "out", *options])[0] == 1
    assert str(cohort.folder / "missing.nii") in cohort.failures()["missing"][1]


def test_statistics_are_parquet_where_that_can_be_written(cohort: Cohort) -> None:
    """With one schema in all parts, also in a part whose values are all unknown."""
    parquet = pytest.importorskip("pyarrow.parquet")
    cohort.add("bad", b"no volume")
    cohort.add("good", phantom())
    for shard in ("0/2", "1/2"):
        cohort.run("--shard", shard)
    parts = [parquet.read_table(path) for path in sorted(cohort.out.glob("*.parquet"))]
    assert [part.num_rows for part in parts] == [1, 1]
    assert parts[0].schema == parts[1].schema
    good = parts[1].to_pylist()[0]
    assert (good["filename"], good["slices"], good["contrast"]) == ("good", SIZE[0], None)
    assert (type(good["voxels"]), type(good["volume_ml"])) == (int, float)


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        ("study,file\na,b\n", (), "index.csv: expected rows with the columns study and path"),
        ("study,path\n", (), "expected rows with the columns"),
        ("study;path\na;b\na;c\n", (), "index.csv: two rows are called a"),
        ("study,path\n,\n\na,b\n,c\n", (), "expected study in each row, received none in line 5"),
        ("study,path\na,b,c\n", (), "expected as many cells"),
        ("study,path\na,b\n", ("--shard", "2/2"), "--shard: expected i/n with i from 0 to n - 1"),
        ("study,path\na,b\n", ("--model", "nobody"), "looked for nobody in"),
        ("study,path\na,b\n", ("--url", "http://127.0.0.1:1"), "cannot be reached"),
        ("study,path\na,b\n", ("--workers", "0"), "--workers: expected at least one"),
    ],
)
def test_what_cannot_begin_gives_2_and_says_why(
    cohort: Cohort, text: str, more: tuple[str, ...], said: str
) -> None:
    command = cohort.command(*more)
    (cohort.folder / "index.csv").write_text(text)
    code, reason = cohort.main(command)
    assert code == 2
    assert said in reason
    assert not cohort.out.exists()


def test_a_server_that_cannot_say_its_model_yet_begins_nothing(cohort: Cohort) -> None:
    """As behind a gateway while it starts: that is no study that failed, and no bug."""
    cohort.add("good", phantom())
    with Scripted((502, {}, b""), seen=b"<h1>Bad Gateway</h1>", status=502) as server:
        code, said = cohort.run("--url", server.url)
    assert (code, said.count("\n")) == (2, 1)
    assert "expected an answer of lungseg, received status 502" in said


@NEEDS_RAY
@pytest.mark.ray
def test_ray_loses_a_killed_actors_study_and_no_other(cohort: Cohort) -> None:
    """Two actors, 40 studies, three of them broken; one actor and then the command is ended."""
    pipe = cohort.add("pipe", None)
    for number in range(36):
        cohort.add(f"s{number:03}", phantom(number))
    for name, content in BROKEN.items():
        cohort.add(name, content)
    with cohort.started("--engine", "ray") as command:
        kill_reader(pipe)
        with fed(pipe):
            reader_of(pipe)
            wait_until(lambda: len(cohort.files(".done.json")) == 39, LONG_S)
            command.terminate()
            said = command.communicate(timeout=LONG_S)[1]
        assert command.returncode == 130, said
    assert cohort.failures().keys() == {*BROKEN}
    before = cohort.files("_mask.nii.gz")
    assert len(before) == 36
    with cohort.started("--engine", "ray") as command:
        with fed(pipe) as stream:
            stream.write(phantom())
        said = command.communicate(timeout=LONG_S)[1]
    assert b"lungseg: 39 of 40 studies are done already\n" in said
    assert cohort.failures().keys() == {*BROKEN}
    after = cohort.files("_mask.nii.gz")
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"pipe"}


@NEEDS_RAY
@pytest.mark.ray
def test_ray_computes_what_processes_do(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same files; slices a second with the default model are printed."""
    for name in ("LUNGSEG_MODEL", "LUNGSEG_MODELS_DIR"):
        monkeypatch.delenv(name)
    size = 16, 128, 128
    for number in range(40):
        cohort.add(f"s{number:03}", nifti(chest(size, number), affine_of()))
    made: list[dict[str, bytes]] = []
    for more in (("--workers", 1), ("--workers", 2), ("--workers", 2, "--engine", "ray")):
        cohort.out = cohort.folder / f"out{len(made)}"
        begun = time.monotonic()
        with cohort.started(*more) as command:
            said = command.communicate()[1]
        assert command.returncode == 0, said
        whole_s = time.monotonic() - begun
        times_ns = cohort.files(".done.json").values()
        slices, worked_s = 40 * size[0], (max(times_ns) - min(times_ns)) / 1e9
        print(
            f"\ncohort {' '.join(map(str, more))}: {slices / whole_s:.1f} slices/s in all, "
            f"{(slices - size[0]) / worked_s:.1f} from the first study to the last"
        )
        made.append({path.name: path.read_bytes() for path in cohort.out.glob("s0*")})
    assert made[0] == made[1] == made[2]
    assert len(made[0]) == 80
