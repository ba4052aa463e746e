"""What the command line takes for slices, and what it leaves behind."""

from __future__ import annotations

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import Any

import pytest

from lungseg.formats.table import SLICES
from tests.client.conftest import Here, environment_of
from tests.client.test_client import PNG, Scripted
from tests.serving import running, wait_until

PATIENCE_S = 60.0


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def rows_of(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(table.read_text().splitlines()))


def test_nothing_is_overwritten_unless_that_is_asked_for(
    folder: Path, here: Here, tmp_path: Path
) -> None:
    """Neither results nor tables; which ones is said, and those that are there stay as they are."""
    out, table = tmp_path / "out", tmp_path / "t.csv"
    asked = ("segment", folder, "-o", out, "--csv", table, "--format", "png")
    assert here(*asked).returncode == 0
    assert table.read_text() == (out / "statistics.csv").read_text()
    (out / "a_mask.png").write_bytes(b"mine")
    table.write_text("mine")
    refused = here(*asked)
    assert refused.returncode == 2
    for path in (out / "statistics.csv", table, out / "a_mask.png"):
        assert str(path) in refused.stderr.decode()
    assert b"and 1 more" in refused.stderr
    assert ((out / "a_mask.png").read_bytes(), table.read_text()) == (b"mine", "mine")
    assert here(*asked, "--force").returncode == 0
    assert (out / "a_mask.png").read_bytes() != b"mine"
    assert table.read_text() == (out / "statistics.csv").read_text()
    assert here("segment", folder, "--csv", "/dev/null").returncode == 0


def test_what_is_done_is_left_out_and_its_rows_stay(
    folder: Path, here: Here, tmp_path: Path
) -> None:
    """Refused slices, and those whose result or row is missing or cut off, are done again."""
    out = tmp_path / "out"
    asked = ("segment", folder, "-o", out, "--format", "png", "--skip-existing")
    (folder / "c.png").write_bytes(b"no slice")
    first = here(*asked)
    assert (first.returncode, first.stderr.count(b"\n")) == (1, 1)
    whole = (out / "statistics.csv").read_text()
    masks = {name: (out / name).stat().st_mtime_ns for name in ("a_mask.png", "deeper/b_mask.png")}
    again = here(*asked)
    assert again.stderr.startswith(b"lungseg: 2 of 3 files are done already\nc.png: ")
    assert sorted((out / "statistics.csv").read_text().splitlines()) == sorted(whole.splitlines())
    assert masks == {name: (out / name).stat().st_mtime_ns for name in masks}

    (folder / "c.png").unlink()
    (out / "a_mask.png").unlink()
    cut = whole[: whole.index("deeper/b.png") + 40]  # as a disk that fills up leaves it
    (out / "statistics.csv").write_text(cut)
    done = here(*asked)
    assert (done.returncode, done.stderr) == (0, b"")
    assert files_in(out) == ["a_mask.png", "deeper/b_mask.png", "statistics.csv"]
    rows = rows_of(out / "statistics.csv")
    assert sorted(row["filename"] for row in rows) == ["a.dcm", "c.png", "deeper/b.png"]
    assert here(*asked).stderr == b"lungseg: 2 of 2 files are done already\n"
    assert here(*asked, "-q").stderr == b""
    assert here(*asked, "--csv", tmp_path / "t.csv").returncode == 0
    assert rows_of(tmp_path / "t.csv") == rows_of(out / "statistics.csv")


def test_a_table_of_another_kind_is_not_continued(folder: Path, here: Here, tmp_path: Path) -> None:
    (tmp_path / "statistics.csv").write_text("filename,area\na.dcm,3\n")
    done = here("segment", folder, "-o", tmp_path, "--skip-existing")
    assert done.returncode == 2
    assert f"{tmp_path}/statistics.csv: expected a table of statistics" in done.stderr.decode()
    assert (tmp_path / "statistics.csv").read_text() == "filename,area\na.dcm,3\n"


def test_what_was_done_before_an_interruption_is_there(
    folder: Path, models: Path, here: Here, tmp_path: Path
) -> None:
    """Rows come as slices do; Ctrl-C says how far it came, and the rest can be done later."""
    out, pipe = tmp_path / "out", tmp_path / "never.dcm"
    os.mkfifo(pipe)  # a slice that never comes
    command = [sys.executable, "-m", "lungseg", "segment", folder, pipe, "-o", out]
    environment = os.environ | environment_of(models)
    # Where the tests run in the background, SIGINT is ignored, and children would inherit that.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
    signal.signal(signal.SIGINT, handler)
    table = out / "statistics.csv"
    try:
        wait_until(lambda: table.exists() and table.read_text().count("\n") == 3)
        assert [row["result"] for row in rows_of(table)] == ["a.json", "deeper/b.json"]
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE_S)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert said == (
        b"lungseg: interrupted: 2 of 3 files are done; "
        b"the same command with --skip-existing goes on\n"
    )
    assert tuple(rows_of(table)[0]) == SLICES.columns
    rest = here("segment", folder, "-o", out, "--skip-existing")
    assert (rest.returncode, rest.stderr) == (0, b"lungseg: 2 of 2 files are done already\n")


def test_an_interruption_of_the_start_is_one_too() -> None:
    """Ctrl-C while modules are still being loaded gives the same exit code and no traceback."""
    code = (
        "import sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'lungseg.cli.segment': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from lungseg.__main__ import command\n"
        "command()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (130, b"lungseg: interrupted\n")


def test_a_server_that_goes_away_leaves_what_was_done(
    folder: Path, models: Path, here: Here, tmp_path: Path
) -> None:
    """The run ends, since no other file will fare better, and says how to go on."""
    table, later = tmp_path / "out" / "statistics.csv", tmp_path / "later.dcm"
    os.mkfifo(later)

    def send_later() -> None:
        wait_until(lambda: table.exists() and table.read_text().count("\n") == 2)
        later.write_bytes(b"x")

    sender = threading.Thread(target=send_later, daemon=True)
    sender.start()
    with Scripted(PNG, (404, {}, b"gone")) as server:
        done = here("segment", folder / "a.dcm", later, "-o", table.parent, "--url", server.url)
    sender.join(PATIENCE_S)
    assert done.returncode == 2
    assert b"1 of 2 files are done; the same command with --skip-existing goes on" in done.stderr
    assert [row["filename"] for row in rows_of(table)] == ["a.dcm"]


def test_what_connects_when_the_run_ends_is_closed_too(
    folder: Path, models: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread is waited for, and none loses the connection that it is about to open."""
    opened: list[socket.socket] = []
    both, ended = threading.Event(), threading.Event()
    connect = socket.create_connection

    def late(*arguments: Any, **options: Any) -> socket.socket:
        opened.append(made := connect(*arguments, **options))
        if threading.current_thread().name.endswith("_0"):  # the first file, whose answer ends all
            both.wait(PATIENCE_S)
        else:
            both.set()
            ended.wait(PATIENCE_S)
        return made

    with running(models, api_keys=("secret",)) as service:
        monkeypatch.setattr(socket, "create_connection", late)
        done = here("segment", folder, "--url", service.url)
        assert (done.returncode, len(opened)) == (2, 2)
        ended.set()
        wait_until(lambda: all(one.fileno() == -1 for one in opened))


@pytest.mark.parametrize(
    ("place", "form"), [("in", "png"), ("in/results", "npy"), (".", "overlay"), ("in", "dicom-seg")]
)
def test_results_are_never_taken_for_slices(
    folder: Path, here: Here, tmp_path: Path, place: str, form: str
) -> None:
    """Whether they lie beside their slices, below or above them; the line counts them."""
    (folder / "deeper" / "b.png").rename(folder / "deeper" / "c.dcm")
    (folder / "deeper" / "c.dcm").write_bytes((folder / "a.dcm").read_bytes())
    searched = folder if place != "." else tmp_path
    asked = ("segment", searched, "-o", tmp_path / place, "--format", form, "--force")
    assert here(*asked).returncode == 0
    before = files_in(tmp_path)
    again = here(*asked)
    assert again.returncode == 0
    assert b"skipped, as no slices by their names: 3 (" in again.stderr
    assert files_in(tmp_path) == before
    named = next(tmp_path.rglob("a_mask.*"), folder / "a.dcm")
    assert here("segment", named, "--allow-non-ct").returncode == 0  # a file that is named is meant


def test_folders_are_searched_as_users_mean_them(
    folder: Path, here: Here, dicom: bytes, tmp_path: Path
) -> None:
    """Indexes, explanations, pipes and links in circles are no slices, broken links are."""
    for name in ("DICOMDIR", "README.txt", "LICENSE", "Thumbs.db", "metadata.csv", ".DS_Store"):
        (folder / name).write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.dcm").write_bytes(dicom)
    (folder / "circle").symlink_to(folder)
    (folder / "linked.dcm").symlink_to(folder / "a.dcm")
    (folder / "broken.dcm").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    done = here("segment", folder, "--csv", "-")
    assert done.returncode == 1
    rows = list(csv.DictReader(done.stdout.decode().splitlines()))
    assert {row["filename"]: row["error"] for row in rows} == {
        "a.dcm": "",
        "broken.dcm": "unreadable",
        "linked.dcm": "",
        "deeper/b.png": "",
    }
    skipped, broken = done.stderr.decode().splitlines()
    assert re.fullmatch(
        r"lungseg: skipped, as no slices by their names: 6 \(\w[^,]*, \w[^,]*, \w[^,]*, …\)",
        skipped,
    )
    assert broken == "broken.dcm: the file cannot be read: No such file or directory"


def test_names_do_nothing_to_a_terminal(folder: Path, here: Here) -> None:
    """What a terminal would obey, or a line break, is shown as an escape; letters are letters."""
    (folder / "\x1b[31mÜ\n\x9b.png").write_bytes(b"no slice")
    (folder / "\x1b[2J_mask.png").write_bytes(b"result")
    done = here("segment", folder, "--csv", "-")
    skipped, refused = done.stderr.decode().splitlines()
    assert skipped.endswith(r"1 (\x1b[2J_mask.png)")
    assert refused.startswith(r"\x1b[31mÜ\n\x9b.png: expected PNG")


def test_slices_of_one_name_keep_their_endings(
    folder: Path, here: Here, grey_png: bytes, tmp_path: Path
) -> None:
    """So that no result replaces another; one whose name would be too long fails alone."""
    (folder / "a.png").write_bytes(grey_png)
    (folder / ("a" * 251 + ".png")).write_bytes(grey_png)
    done = here("segment", folder, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.endswith(b"aaa.png: the name of its result is too long\n")
    assert files_in(tmp_path / "out")[:2] == ["a.dcm.json", "a.png.json"]


def test_the_table_alone_goes_to_standard_output(folder: Path, here: Here, tmp_path: Path) -> None:
    """With a folder for results there are both."""
    alone = here("segment", folder, "--csv", "-")
    both = here("segment", folder, "--csv", "-", "-o", tmp_path / "out")
    assert (alone.returncode, both.returncode) == (0, 0)
    first, second = (list(csv.DictReader(x.stdout.decode().splitlines())) for x in (alone, both))
    assert [row.pop("result") for row in second] == ["a.json", "deeper/b.json"]
    assert [row.pop("result") for row in first] == ["", ""]
    assert first == second
    assert both.stdout == (tmp_path / "out" / "statistics.csv").read_bytes()


def in_a_shell(line: str, folder: Path, models: Path) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | environment_of(models) | {"LUNGSEG": f"{sys.executable} -m lungseg"}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, check=False
    )


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("$LUNGSEG segment a.dcm >&-", 2, b"lungseg: expected a place for results, received a"),
        ("$LUNGSEG segment - <&-", 2, b"lungseg: expected a slice at standard input, which is"),
        ("$LUNGSEG segment a.dcm -o out >&- 2>&- <&-; cat out/statistics.csv >/dev/null", 0, b""),
        ("$LUNGSEG sample >/dev/full", 2, b"lungseg: standard output: No space left on device"),
        ("$LUNGSEG segment a.dcm >/dev/full", 2, b"lungseg: standard output: No space left on"),
        ("$LUNGSEG openapi | true; exit ${PIPESTATUS[0]}", 141, b""),
        ("$LUNGSEG segment . | true; exit ${PIPESTATUS[0]}", 141, b""),
    ],
)
def test_standard_streams_may_be_closed_or_left(
    folder: Path, models: Path, line: str, code: int, said: bytes
) -> None:
    """There is a sentence where something is lost, silence where the reader left, no traceback."""
    done = in_a_shell(line, folder, models)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(said)
    assert done.stderr.count(b"\n") == bool(said)


def test_a_terminal_sees_how_long_it_will_take(folder: Path, models: Path) -> None:
    """The bar says what part is done and what time is left."""
    leader, follower = os.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    command = [sys.executable, "-m", "lungseg", "segment", folder, "--csv", "/dev/null"]
    seen = bytearray()

    def read() -> None:
        try:
            while chunk := os.read(leader, 4096):
                seen.extend(chunk)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    environment = os.environ | environment_of(models)
    subprocess.run(command, stderr=follower, stdout=subprocess.DEVNULL, env=environment, check=True)
    os.close(follower)
    reader.join(PATIENCE_S)
    assert b"0 of 2" in seen
    assert b"2 of 2: 100%|" in seen
