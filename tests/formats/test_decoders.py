"""Native decoders in processes of their own: they may die, hang or grow, and nobody else does."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame

from lungseg.core.errors import UndecodableImage
from lungseg.formats.decoder_process import DecoderUnavailable
from lungseg.formats.decoders import DecoderLimits, Decoders
from lungseg.formats.read import read_scan
from tests.formats import jpeg_lossless
from tests.formats.dicoms import HTJ2K_24_BY_16, compressed, encapsulated, parse, save
from tests.serving import PATIENCE_S, wait_until
from training.synthetic.phantom import Phantom, dicom_bytes, make_phantom

MIB = 1 << 20
EIGHT = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
SIXTEEN = {"BitsStored": 16, "HighBit": 15}
SIGNED = {"PixelRepresentation": 1, "RescaleIntercept": "0", **SIXTEEN}


@pytest.fixture(scope="module")
def large() -> bytes:
    """A JPEG 2000 of 2048 x 2048 pixels."""
    noise = np.random.default_rng(0).integers(0, 4096, (2048, 2048)).astype("<u2")
    plain = dicom_bytes(make_phantom((61, 83), seed=2))
    dataset = parse(plain)
    dataset.Rows = dataset.Columns = 2048
    dataset.PixelData = noise.tobytes()
    return compressed(save(dataset), uid.JPEG2000Lossless)


@pytest.fixture
def restarts() -> list[str]:
    return []


@pytest.fixture
def make(restarts: list[str]) -> Iterator[Callable[..., Decoders]]:
    """Makes decoders that end with the test."""
    made: list[Decoders] = []

    def build(**limits: float) -> Decoders:
        made.append(
            Decoders(DecoderLimits(**{"processes": 1} | limits), on_restart=restarts.append)
        )
        return made[-1]

    yield build
    for decoders in made:
        decoders.close()


def family(process: psutil.Process | None = None) -> dict[int, psutil.Process]:
    """The processes below the one that forks decoders, by pid."""
    hosts = (process or psutil.Process()).children()
    return {child.pid: child for host in hosts for child in host.children()}


def pixels(content: bytes) -> np.ndarray:
    """Stored values as pydicom decodes them in this very process."""
    return parse(content).pixel_array


def lossless(small: Phantom, precision: int = 12, predictor: int = 1) -> bytes:
    return jpeg_lossless.encode((small.hu + 1024).astype(np.uint16), precision, predictor)


def grey_jpeg(small: Phantom) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(((small.hu + 1024) / 16).astype(np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


# --- what is decoded ----------------------------------------------------------------------------


def valid(small: Phantom, name: str) -> bytes:
    """A file of each syntax, as far as pydicom can read them, too."""
    plain = dicom_bytes(small)
    signed = dicom_bytes(small, PixelData=small.hu.astype("<i2").tobytes(), **SIGNED)
    htj2k = {"Rows": 16, "Columns": 24, "RescaleIntercept": "0", **SIXTEEN}
    makers = {
        "baseline": lambda: encapsulated(plain, grey_jpeg(small), uid.JPEGBaseline8Bit, **EIGHT),
        "lossless": lambda: encapsulated(plain, lossless(small), uid.JPEGLosslessSV1),
        "lossless in 16": lambda: encapsulated(plain, lossless(small, 16), uid.JPEGLosslessSV1),
        "lossless, above": lambda: encapsulated(plain, lossless(small, 12, 2), uid.JPEGLossless),
        "JPEG-LS": lambda: compressed(plain, uid.JPEGLSLossless),
        "JPEG-LS, signed": lambda: compressed(signed, uid.JPEGLSLossless),
        "JPEG-LS, near": lambda: near_lossless(plain),
        "JPEG 2000": lambda: compressed(plain, uid.JPEG2000Lossless),
        "JPEG 2000, signed": lambda: compressed(signed, uid.JPEG2000Lossless),
        "JPEG 2000, lossy": lambda: lossy(plain),
        **{
            f"HTJ2K {last}": lambda last=last: encapsulated(
                plain, HTJ2K_24_BY_16, f"1.2.840.10008.1.2.4.{last}", **htj2k
            )
            for last in (201, 202, 203)
        },
    }
    return makers[name]()


@pytest.mark.parametrize("allocated", [16, 32])
def test_a_stream_of_smaller_samples_than_bits_allocated_is_widened(
    small: Phantom, plain: bytes, allocated: int
) -> None:
    """As some writers allocate, as long as the samples hold Bits Stored."""
    header = {"BitsAllocated": allocated, "BitsStored": 8, "HighBit": 7}
    frame = jpeg_lossless.encode((small.hu + 1024).astype(np.uint16) >> 4, 8)
    scan = read_scan(encapsulated(plain, frame, uid.JPEGLosslessSV1, **header))
    assert np.array_equal(scan.values[0], ((small.hu + 1024).astype(np.uint16) >> 4) - 1024.0)


def near_lossless(plain: bytes) -> bytes:
    dataset = parse(plain)
    dataset.compress(uid.JPEGLSNearLossless, jls_error=2, generate_instance_uid=False)
    return save(dataset)


def lossy(plain: bytes) -> bytes:
    dataset = parse(plain)
    dataset.compress(uid.JPEG2000, j2k_cr=[3], generate_instance_uid=False)
    return save(dataset)


@pytest.mark.parametrize(
    "name",
    [
        *("baseline", "lossless", "lossless in 16", "lossless, above"),
        *("JPEG-LS", "JPEG-LS, signed", "JPEG-LS, near"),
        *("JPEG 2000", "JPEG 2000, signed", "JPEG 2000, lossy"),
        *("HTJ2K 201", "HTJ2K 202", "HTJ2K 203"),
    ],
)
def test_a_decoder_process_gives_what_pydicom_gives_in_process(small: Phantom, name: str) -> None:
    """Bit for bit, in every transfer syntax that both read."""
    content = valid(small, name)
    dataset = parse(content)
    expected = pixels(content) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    assert np.array_equal(read_scan(content).values[0], expected.astype(np.float32))


def test_decoders_work_side_by_side_and_each_gets_its_own(
    make: Callable[..., Decoders], restarts: list[str]
) -> None:
    """Two processes serve eight threads, and no answer goes to another's file."""
    decoders = make(processes=2)
    phantoms = [make_phantom((40 + number, 51), seed=number) for number in range(8)]
    files = [compressed(dicom_bytes(one), uid.JPEGLSLossless) for one in phantoms]
    with ThreadPoolExecutor(8) as pool:
        scans = list(pool.map(lambda one: read_scan(one, decode=decoders.decode), files * 6))
    assert all(
        np.array_equal(scan.values[0], one.hu)
        for scan, one in zip(scans, phantoms * 6, strict=True)
    )
    assert len(family()) <= 2 + shared_count()
    assert restarts == []


def shared_count() -> int:
    """Decoders of other tests in this process, which they share."""
    return os.cpu_count() or 1


def test_nothing_of_a_decoder_reaches_the_terminal_and_no_key_reaches_it(
    make: Callable[..., Decoders],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GDCM writes a line about 12-bit JPEG before it tries another of its decoders."""
    monkeypatch.setenv("LUNGSEG_API_KEYS", "secret")
    decoders, before = make(), family()
    content = Path(get_testdata_file("JPEG-lossy.dcm", download=False)).read_bytes()
    assert read_scan(content, allow_non_ct=True, decode=decoders.decode).size == (1024, 256)
    assert capfd.readouterr() == ("", "")
    (decoder,) = set(family()) - set(before)
    assert "secret" not in psutil.Process(decoder).environ().values()


# --- what kills, hangs or grows -----------------------------------------------------------------


def refused(content: bytes, decoders: Decoders, remaining_s: float = PATIENCE_S) -> str:
    with pytest.raises(UndecodableImage) as raised:
        read_scan(content, decode=lambda frame: decoders.decode(frame, remaining_s))
    return str(raised.value)


def test_streams_that_end_gdcm_cost_themselves_alone(
    small: Phantom, plain: bytes, make: Callable[..., Decoders]
) -> None:
    """Junk between frame header and tables, and precisions that no JPEG has."""
    decoders, frame = make(), lossless(small)
    table = frame.index(b"\xff\xc4")
    junk = frame[:table] + b"\xfe" * 34 + frame[table:]
    refused(encapsulated(plain, junk, uid.JPEGLosslessSV1), decoders)
    wide = {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}
    for precision in (17, 18, 32, 64, 128, 255):
        odd = bytearray(frame)
        odd[odd.index(b"\xff\xc3") + 4] = precision
        for header in ({}, wide):
            refused(encapsulated(plain, bytes(odd), uid.JPEGLosslessSV1, **header), decoders)
    whole = encapsulated(plain, frame, uid.JPEGLosslessSV1)
    assert np.array_equal(read_scan(whole, decode=decoders.decode).values[0], small.hu)


def only_decoder(decoders: Decoders, content: bytes) -> psutil.Process:
    """The one that reads a first file, and then waits for others."""
    before = set(family())
    read_scan(content, decode=decoders.decode)
    (pid,) = set(family()) - before
    return psutil.Process(pid)


def stopped(decoders: Decoders, content: bytes) -> psutil.Process:
    """The one decoder, standing still, as one in an endless loop."""
    process = only_decoder(decoders, content)
    process.suspend()
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
    return process


@contextmanager
def at_work(decoder: psutil.Process, content: bytes, decoders: Decoders) -> Generator[Future[str]]:
    """A file is with that decoder, and will be refused; the answer is its error's text."""
    spent = decoder.cpu_times().user
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(refused, content, decoders)
        wait_until(lambda: decoder.cpu_times().user > spent)
        yield answer


def test_a_decoder_killed_at_work_costs_its_file_alone(
    small: Phantom, plain: bytes, large: bytes, make: Callable[..., Decoders], restarts: list[str]
) -> None:
    """The next file gets a new decoder."""
    decoders, content = make(), compressed(plain, uid.JPEGLSLossless)
    victim = only_decoder(decoders, content)
    with at_work(victim, large, decoders) as answer:
        victim.kill()
        assert "ends its decoder" in answer.result()
    assert restarts == ["died"]
    assert np.array_equal(read_scan(content, decode=decoders.decode).values[0], small.hu)


def test_a_decoder_killed_while_idle_costs_nothing(
    small: Phantom, plain: bytes, make: Callable[..., Decoders], restarts: list[str]
) -> None:
    """Nor does the death of the process that forks them."""
    decoders, content = make(), compressed(plain, uid.JPEG2000Lossless)
    before = {child.pid for child in psutil.Process().children()}
    end(only_decoder(decoders, content))
    assert np.array_equal(read_scan(content, decode=decoders.decode).values[0], small.hu)
    (host,) = {child.pid for child in psutil.Process().children()} - before
    for process in (*psutil.Process(host).children(), psutil.Process(host)):
        end(process)
    assert np.array_equal(read_scan(content, decode=decoders.decode).values[0], small.hu)
    assert restarts == []


def test_a_decoder_that_stands_still_is_replaced_at_its_deadline(
    small: Phantom, plain: bytes, make: Callable[..., Decoders], restarts: list[str]
) -> None:
    """Even where no alarm reaches it, and even where only its caller has no more time."""
    decoders, content = make(timeout_s=0.5), compressed(plain, uid.JPEGLSLossless)
    for asked, remaining_s in ((decoders, PATIENCE_S), (make(), 0.05)):
        victim = stopped(asked, content)
        assert "takes longer" in refused(content, asked, remaining_s)
        assert not victim.is_running()
    assert restarts == ["late", "late"]
    assert np.array_equal(read_scan(content, decode=decoders.decode).values[0], small.hu)


def test_native_code_is_interrupted_at_the_deadline(
    large: bytes, make: Callable[..., Decoders], restarts: list[str]
) -> None:
    """The kernel's alarm ends it, whatever it is doing."""
    assert "takes longer" in refused(large, make(timeout_s=0.02))
    assert restarts == ["late"]


def test_a_decoder_gets_no_more_memory_than_it_may(
    large: bytes, small: Phantom, plain: bytes, make: Callable[..., Decoders]
) -> None:
    """What needs more is refused, and a small file still decodes."""
    decoders = make(memory_bytes=24 * MIB)
    refused(large, decoders)
    content = compressed(plain, uid.JPEG2000Lossless)
    assert np.array_equal(read_scan(content, decode=decoders.decode).values[0], small.hu)
    assert read_scan(large, decode=make(memory_bytes=256 * MIB).decode).size == (2048, 2048)


def test_limits_beyond_all_bounds_are_none(
    make: Callable[..., Decoders], small: Phantom, plain: bytes
) -> None:
    """Whoever sets far too much for "as much as there is" gets that, not a refusal of all files."""
    decoders = make(memory_bytes=1 << 80, timeout_s=1e300)
    content = compressed(plain, uid.JPEG2000Lossless)
    assert np.array_equal(read_scan(content, decode=decoders.decode).values[0], small.hu)


def test_closing_ends_what_is_at_work_and_starts_nothing_new(
    large: bytes, plain: bytes, make: Callable[..., Decoders], restarts: list[str]
) -> None:
    """So that a service stops at once, and counts no file as the cause."""
    decoders, content = make(), compressed(plain, uid.JPEGLSLossless)
    worker = only_decoder(decoders, content)
    with at_work(worker, large, decoders) as answer:
        decoders.close()
        answer.result()
    assert not worker.is_running()
    with pytest.raises(DecoderUnavailable):
        read_scan(content, decode=decoders.decode)
    assert restarts == []


def test_a_jpeg_ls_stream_that_is_cut_meets_no_decoder(
    plain: bytes, make: Callable[..., Decoders], restarts: list[str]
) -> None:
    """CharLS would run for seconds, and refuse it all the same."""
    dataset = parse(compressed(plain, uid.JPEGLSLossless))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    scan = frame.index(b"\xff\xda")
    end_in_a_comment = frame[:scan] + b"\xff\xfe\0\x04\xff\xd9" + frame[scan:]
    for whole in (frame, end_in_a_comment):
        for cut in range(2, 9):
            content = encapsulated(plain, whole[:-cut], uid.JPEGLSLossless)
            assert "a part of one" in refused(content, make(timeout_s=0.001))
    assert restarts == []


# --- what the stream says of itself -------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "header", "named"),
    [
        (16, EIGHT, "8 bits in 8, as the header says, received 16 bits"),
        (8, {}, "12 bits in 16, as the header says, received 8 bits"),
        (12, {"Rows": 62}, "62 x 83, and 1 sample, received 61 x 83 and 1"),
        (12, {"Columns": 8}, "61 x 8, and 1 sample, received 61 x 83 and 1"),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "JPEG-LS", "JPEG 2000"])
def test_a_stream_that_contradicts_the_header_is_refused_with_both_values(
    small: Phantom, plain: bytes, kind: str, precision: int, header: dict, named: str
) -> None:
    if kind == "JPEG":
        samples = (small.hu + 1024).astype(np.uint16) >> (4 if precision == 8 else 0)
        content = encapsulated(
            plain, jpeg_lossless.encode(samples, precision), uid.JPEGLosslessSV1, **header
        )
    else:
        syntax = uid.JPEGLSLossless if kind == "JPEG-LS" else uid.JPEG2000Lossless
        frame = coded(small, syntax, precision)
        content = encapsulated(plain, frame, syntax, **header)
    with pytest.raises(UndecodableImage, match=named):
        read_scan(content)


def coded(small: Phantom, syntax: str, precision: int) -> bytes:
    """A frame of that precision, by pydicom's encoders."""
    bits = EIGHT if precision == 8 else {"BitsStored": precision, "HighBit": precision - 1}
    samples = (small.hu + 1024).astype("<u2") >> (4 if precision == 8 else 0)
    stored = samples.astype(np.uint8) if precision == 8 else samples
    data = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    dataset = parse(compressed(dicom_bytes(small, PixelData=data, **bits), syntax))
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


def test_a_stream_with_a_second_header_or_three_samples_is_refused(
    small: Phantom, plain: bytes
) -> None:
    """The second one announces 5000 x 5000."""
    frame = lossless(small)
    table = frame.index(b"\xff\xc4")
    second = b"\xff\xc0\x00\x0b\x08\x13\x88\x13\x88\x01\x01\x11\x00"
    double = encapsulated(plain, frame[:table] + second + frame[table:], uid.JPEGLosslessSV1)
    with pytest.raises(UndecodableImage, match="one frame header in the JPEG, received 2"):
        read_scan(double)
    stream = io.BytesIO()
    Image.new("RGB", (83, 61)).save(stream, "JPEG")
    colour = encapsulated(plain, stream.getvalue(), uid.JPEGBaseline8Bit, **EIGHT)
    with pytest.raises(UndecodableImage, match="1 sample, received 61 x 83 and 3"):
        read_scan(colour)


# --- whose children they are --------------------------------------------------------------------

SCRIPT = """
import json, os, pathlib, sys, threading
from lungseg.formats.read import read_scan

content = pathlib.Path(sys.argv[1]).read_bytes()
sums = []
thread = threading.Thread(target=lambda: sums.append(float(read_scan(content).values.sum())))
thread.start()
thread.join()
if not os.fork():
    os._exit(float(read_scan(content).values.sum()) != sums[0])
forked = os.waitstatus_to_exitcode(os.wait()[1])
sums.append(float(read_scan(content).values.sum()))
print(json.dumps([*sums, forked]), flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, None], ids=["killed", "at its end"])
def test_no_process_stays_behind_a_script_without_a_main_guard(
    small: Phantom, plain: bytes, tmp_path: Path, end: int | None
) -> None:
    """From a thread, from a fork, and read again: the children end with the process."""
    file = tmp_path / "slice.dcm"
    file.write_bytes(compressed(plain, uid.JPEGLSLossless))
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(file)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdin=-1, stdout=-1, stderr=-1
    ) as script:
        first, second, forked = json.loads(script.stdout.readline() or script.stderr.read())
        assert first == second == float(small.hu.sum())
        assert forked == 0
        children = psutil.Process(script.pid).children(recursive=True)
        assert len(children) == 2
        if end:
            script.send_signal(end)
        _, errors = script.communicate(b"\n", PATIENCE_S)
    assert errors == b""
    wait_until(lambda: not any(map(alive, children)))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def end(process: psutil.Process) -> None:
    process.kill()
    wait_until(lambda: not alive(process))


def alive(process: psutil.Process) -> bool:
    """Whether it runs: where nobody waits for orphans, a dead one keeps its number."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
