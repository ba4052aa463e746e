"""What the documents show, taken out of them and run as a reader would run it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from lungseg.formats.label_map import volume_nifti
from lungseg.formats.volume import read_volume
from training.synthetic.phantom import make_phantom, write_dicom, write_png

ROOT = Path(__file__).parents[1]
ADDRESS = "127.0.0.1:8000"
PROGRAMS_SHOWN = (
    *("curl ", "printf ", "lungseg segment", "lungseg sample", "lungseg volume"),
    *("lungseg compare", "lungseg cohort"),
)
SLICES = 8


def blocks(page: str, kind: str) -> list[str]:
    """The fenced blocks of a kind, in the order in which they stand on a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[str]:
    """The command lines of a page that ask a server or the command line for something."""
    lines = "\n".join(blocks(page, "sh")).splitlines()
    bare = (line.partition("  #")[0].strip() for line in lines)
    return [line for line in bare if line.startswith(PROGRAMS_SHOWN)]


def prepare(folder: Path) -> Path:
    """Puts the files that the examples name into a folder."""
    phantom = make_phantom(seed=2)
    write_png(phantom, folder / "slice.png")
    for name in ("slice.dcm", "a.dcm", "b.dcm"):
        write_dicom(phantom, folder / name)
    (folder / "slices").mkdir()
    shutil.copy(folder / "slice.dcm", folder / "slices")
    with zipfile.ZipFile(folder / "slices.zip", "w") as archive:
        archive.write(folder / "slice.dcm", "slice.dcm")
    (folder / "service").symlink_to(ROOT / "service")
    _prepare_volumes(folder)
    return folder


def _prepare_volumes(folder: Path) -> None:
    """A series of a chest in a folder, in a study of a folder of studies, as zip and NIfTI."""
    uids = {"StudyInstanceUID": "1.2.3.1", "SeriesInstanceUID": "1.2.3.2"}
    (folder / "series").mkdir()
    for number in range(SLICES):
        phantom = make_phantom((128, 128), seed=2, level=number / SLICES)
        place = {"ImagePositionPatient": [-175.0, -175.0, -20.0 * number], **uids}
        write_dicom(phantom, folder / f"series/{number}.dcm", FrameOfReferenceUID="1.2.3", **place)
    shutil.copytree(folder / "series", folder / "studies" / "one")
    files = [path.read_bytes() for path in sorted((folder / "series").iterdir())]
    (folder / "chest.nii.gz").write_bytes(volume_nifti(read_volume(files)))
    (folder / "index.csv").write_text("study,path,unit\none,series,\ntwo,chest.nii.gz,hu\n")
    shutil.make_archive(str(folder / "series"), "zip", folder / "series")


def environment(folder: Path) -> dict[str, str]:
    """A shell's variables in which ``lungseg`` and ``python`` are this checkout's."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'service'}",
        "LUNGSEG_MODELS_DIR": str(ROOT / "models"),
        "HOME": str(folder),
    }


def run(command: list[str], folder: Path) -> str:
    """Runs a command in a folder; returns what it writes to standard output."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stderr}{done.stdout}"
    return done.stdout


def run_line(line: str, port: int, folder: Path) -> str:
    """Runs a command line at another port; a file that it writes must be a picture or archive."""
    line = line.replace(ADDRESS, f"127.0.0.1:{port}")
    line = re.sub(r"^curl ", "curl --fail-with-body ", line)
    shown = run(["bash", "-c", line], folder)
    if target := re.search(r"(?:-o |> )(\S+\.(?:png|zip))", line):
        content = (folder / target[1]).read_bytes()
        assert content.startswith((b"\x89PNG", b"PK"))
    return shown
