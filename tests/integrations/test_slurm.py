"""``integrations/slurm/cohort.sbatch`` on a real SLURM of one node, started for this test."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integrations.test_cohort import BROKEN, Cohort, cohort, fed, phantom, reader_of
from tests.serving import wait_until

__all__ = ["cohort"]
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "integrations" / "slurm" / "cohort.sbatch"
DAEMONS = ("munged", "slurmctld", "slurmd")
NODE = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
KillWait=20
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        not all(map(shutil.which, DAEMONS)), reason="needs SLURM: apt-get install slurm-wlm"
    ),
]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A controller and a node in a folder; commands of SLURM find it by its variable."""
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    configuration = folder / "slurm.conf"
    configuration.write_text(
        NODE.format(
            host=socket.gethostname().partition(".")[0],
            ports=(free_port(), free_port()),
            folder=folder,
            user=Path.home().owner(),
            cpus=os.cpu_count(),
        )
    )
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    files = ("key", "pid", "log", "seed")
    munged = [f"--{name}-file={folder}/munge.{name}" for name in files if name != "key"]
    munged += [f"--key-file={key}", f"--socket={folder}/munge.socket", "--force", "--foreground"]
    with ExitStack() as stack:
        for command in (["munged", *munged], ["slurmctld", "-D"], ["slurmd", "-D"]):
            log = stack.enter_context((folder / f"{command[0]}.out").open("wb"))
            daemon = stack.enter_context(subprocess.Popen(command, stdout=log, stderr=log))
            stack.callback(daemon.terminate)
            wait_until((folder / "munge.socket").exists)
        wait_until(lambda: told("sinfo", "--noheader", "--format=%T").strip() == "idle")
        yield folder


def told(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    return done.stdout


def submit(cohort: Cohort, folder: Path, *more: str) -> list[str]:
    """The line that a user writes, for two tasks of one processor each."""
    cohort.command()
    asked = ("--array=1-2", "--cpus-per-task=1", "--mem-per-cpu=1500", f"--output={folder}/%a.log")
    index = f"{cohort.folder}/index.csv"
    return ["sbatch", *asked, *more, str(SCRIPT), index, str(cohort.out), "--unit", "hu"]


def test_a_job_array_does_each_study_once(cohort: Cohort, slurm: Path) -> None:
    """Also when it is cancelled in the middle, and the same line is submitted again."""
    pipe = cohort.add("pipe", None)
    for number in range(7):
        cohort.add(f"s{number}", phantom(number))
    for name, content in BROKEN.items():
        cohort.add(name, content)
    job = told(*submit(cohort, slurm, "--parsable")).strip()
    with fed(pipe):
        reader_of(pipe)
        wait_until(lambda: any(cohort.out.glob("statistics-1-of-2.*")))
        told("scancel", job)
        wait_until(lambda: not told("squeue", "--noheader").strip())
    assert "interrupted" in (slurm / "1.log").read_text()
    pipe.unlink()
    cohort.add("pipe", phantom())
    before = cohort.files("_mask.nii.gz")
    done = subprocess.run(submit(cohort, slurm, "--wait"), check=False, capture_output=True)
    assert done.returncode == 1
    after = cohort.files("_mask.nii.gz")
    assert after.keys() == {"pipe", *(f"s{number}" for number in range(7))}
    assert {name: after[name] for name in before} == before
    assert len(list(cohort.out.glob("statistics-*-of-2.*"))) == 2
    assert cohort.failures().keys() == {*BROKEN}
    assert cohort.rows().keys() == cohort.studies.keys()
