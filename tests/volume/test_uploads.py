"""What people send: zips full of other things, phases, compressed and damaged files, too much."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from lungseg.core.errors import LungsegError
from lungseg.core.volume import Volume, VolumeLimits
from lungseg.formats.volume import read_volume
from tests.formats.dicoms import compressed, parse, save, uncompressed
from tests.volume.series import (
    BEAD_HU,
    SLICES,
    Stack,
    enhanced,
    instance,
    instances,
    saved,
    sent,
    stack,
)

TEXT = b"This is a viewer for Windows. " * 20
WHOLE = stack()
FILES = instances(WHOLE)
LIMITS = VolumeLimits(max_slices=40, max_bytes=1 << 20, max_pixels=1 << 16, max_files=100)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def in_folders(files: Sequence[bytes]) -> dict[str, bytes]:
    return {f"study/{k % 3}/IM{k}": content for k, content in enumerate(files)}


def dicomdir() -> bytes:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.MediaStorageDirectoryStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3.4.5.6"
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    directory = Dataset()
    directory.file_meta = meta
    directory.FileSetID = "PHANTOM"
    directory.DirectoryRecordSequence = []
    return save(directory)  # type: ignore[arg-type]


def report() -> bytes:
    """A structured report: a DICOM object without pixels."""
    given = instance(WHOLE, 0, SOPClassUID=uid.BasicTextSRStorage, Modality="SR")
    del given.PixelData, given.Rows
    return saved(given)


def refusal(files: Sequence[bytes], **options: object) -> LungsegError:
    with pytest.raises(LungsegError) as refused:
        read_volume(files, **({"limits": LIMITS} | options))  # type: ignore[arg-type]
    return refused.value


def assert_same(one: Volume, other: Volume) -> None:
    assert np.array_equal(one.scan.values, other.scan.values)
    assert one.scan.values.dtype == other.scan.values.dtype
    assert np.array_equal(one.scan.positions_mm, other.scan.positions_mm)


def test_a_zip_is_the_series_in_it() -> None:
    """Folders and names mean nothing; what is no CT is counted by reason."""
    beside = {
        "DICOMDIR": dicomdir(),
        "README.TXT": TEXT,
        "__MACOSX/study/0/._IM0": TEXT,
        ".DS_Store": TEXT,
        "study/report": report(),
        "study/screen": saved(instance(WHOLE, 0, ImageType=["DERIVED", "SCREEN SAVE"])),
        "study/pet": saved(
            instance(
                WHOLE, 0, Modality="PT", SOPClassUID=uid.PositronEmissionTomographyImageStorage
            )
        ),
        "study/colours": saved(instance(WHOLE, 0, SamplesPerPixel=3)),
        "study/cut": FILES[0][:600],
        "study/more.zip": zipped({"x": TEXT}),
    }
    volume = read_volume([zipped(in_folders(FILES) | beside)])
    assert_same(volume, read_volume(FILES))
    assert {one.reason: one.count for one in volume.dropped} == {
        "archive": 1,
        "colour": 1,
        "damaged": 1,
        "dicomdir": 1,
        "hidden_file": 2,
        "no_image": 1,
        "not_dicom": 1,
        "other_modality": 1,
        "secondary_capture": 1,
    }


@given(order=st.permutations(range(SLICES)))
@settings(max_examples=5, deadline=None)
def test_the_order_of_files_means_nothing(order: Sequence[int]) -> None:
    assert_same(read_volume([FILES[k] for k in order]), read_volume(FILES))


def test_headers_come_in_the_order_of_the_slices() -> None:
    """Outputs in DICOM refer to them, and nothing of the pixels is kept."""
    volume = read_volume(FILES)
    places = [[float(z) for z in header.ImagePositionPatient] for header in volume.headers]
    assert np.allclose(places, volume.scan.positions_mm)
    assert all("PixelData" not in header for header in volume.headers)
    assert volume.frames == ()


def test_frames_say_what_functional_groups_say() -> None:
    """Of a multi-frame object every slice has a header and the number of its frame."""
    volume = read_volume([enhanced(WHOLE)])
    assert sorted(volume.frames) == list(range(1, SLICES + 1))
    places = [[float(z) for z in header.ImagePositionPatient] for header in volume.headers]
    assert np.allclose(places, volume.scan.positions_mm)
    assert {str(header.PatientName) for header in volume.headers} == {"Phantom^Synthetic"}
    assert volume.acquisition.slice_thickness_mm == 6.5


def test_what_a_header_says_of_the_acquisition() -> None:
    told = read_volume(FILES[:3]).acquisition
    assert (told.kernel, told.kvp, told.slice_thickness_mm) == ("SOFT", 120.0, 6.5)
    assert (told.contrast, told.manufacturer) == (None, "phantom works")
    agents = {"": None, "NONE": False, "IODINE": True}
    for agent, contrast in agents.items():
        files = instances(WHOLE, [1], ContrastBolusAgent=agent)
        assert read_volume(files).acquisition.contrast is contrast


def test_a_series_is_chosen_by_its_uid() -> None:
    """The shorter one too; one that was not sent is a mistake of the caller."""
    files = sent("two series").files
    chosen = read_volume(files, series="1.2.3.9")
    assert len(chosen.scan.values) == 18
    assert [one.kernel for one in chosen.series if one.chosen] == ["SHARP"]
    assert refusal(files, series="1.2.3.77").code == "invalid_parameter"


def test_a_phase_is_chosen_by_its_index() -> None:
    """In the order of what tells them apart; the refusal without an index says how many."""
    files = sent("two phases").files
    lungs = [(read_volume(files, volume=index).scan.values < -800).any() for index in (0, 1)]
    air = [(read_volume(files, volume=index).scan.values == -850).any() for index in (0, 1)]
    assert (lungs, air) == ([True, False], [True, False])
    assert "volume=0 to volume=1" in str(refusal(files))
    assert refusal(files, volume=2).code == "invalid_parameter"
    assert refusal(files, volume=-1).code == "invalid_parameter"


@pytest.mark.parametrize(
    "syntax",
    [
        uid.RLELossless,
        uid.JPEGLSLossless,
        uid.JPEG2000Lossless,
        uid.DeflatedExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.ImplicitVRLittleEndian,
    ],
)
def test_every_transfer_syntax_gives_the_same_volume(syntax: str) -> None:
    change = compressed if uid.UID(syntax).is_compressed else uncompressed
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        change = uncompressed
    few = FILES[:4]
    assert_same(read_volume([change(one, syntax) for one in few]), read_volume(few))


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless])
def test_compressed_frames_of_one_file(syntax: str) -> None:
    """With a slope for each of them."""
    plain = enhanced(WHOLE)
    assert_same(read_volume([compressed(plain, syntax)]), read_volume([plain]))


def encrypted() -> bytes:
    content = bytearray(zipped(in_folders(FILES[:3])))
    for place in range(len(content) - 4):
        if content[place : place + 4] == b"PK\x01\x02":
            content[place + 8] |= 1
    return bytes(content)


def many_members() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for k in range(3000):
            archive.writestr(f"{k}", b"")
    return stream.getvalue()


def bomb() -> bytes:
    return zipped({"IM0": bytes(900_000) + bytes(1 << 20)})


def changed(**attributes: object) -> list[bytes]:
    """Three slices of which each says something."""
    return instances(WHOLE, [0, 1, 2], **attributes)


def frames_beyond() -> list[bytes]:
    given = parse(enhanced(WHOLE))
    given.NumberOfFrames = 30_000
    return [save(given)]


def too_few_frames() -> list[bytes]:
    given = parse(enhanced(WHOLE))
    given.PixelData = given.PixelData[: len(given.PixelData) // 2]
    return [save(given)]


def aside() -> list[bytes]:
    """Slices in a spiral: each is moved within its plane."""
    turn = np.linspace(0, 6, SLICES)[:, None]
    places = WHOLE.positions + 20 * np.hstack([np.cos(turn), np.sin(turn), 0 * turn])
    return instances(Stack(hu=WHOLE.hu, positions=places, row=WHOLE.row, column=WHOLE.column))


def too_many_slices() -> list[bytes]:
    return [
        saved(
            instance(WHOLE, k % SLICES, SOPInstanceUID=f"1.9.{k}", ImagePositionPatient=[0, 0, k])
        )
        for k in range(41)
    ]


def nifti() -> bytes:
    header = bytearray(352)
    struct.pack_into("<i8h", header, 0, 348, 0, 0, 0, 0, 0, 0, 0, 0)
    struct.pack_into("<8h", header, 40, 3, 4, 4, 4, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<f", header, 108, 352.0)
    header[344:348] = b"n+1\0"
    return bytes(header) + np.linspace(-1000, 200, 64).astype("<i2").tobytes()


REFUSALS: dict[str, tuple[Callable[[], Sequence[bytes]], str]] = {
    "nothing": (list, "malformed_request"),
    "empty file": (lambda: [b""], "malformed_request"),
    "empty zip": (lambda: [zipped({})], "malformed_request"),
    "zip of folders": (lambda: [zipped({"a/": b"", "a/b/": b""})], "malformed_request"),
    "damaged zip": (lambda: [zipped(in_folders(FILES))[:-30]], "malformed_request"),
    "encrypted zip": (lambda: [encrypted()], "malformed_request"),
    "names that point elsewhere": (lambda: [zipped({"../x": FILES[0]})], "malformed_request"),
    "bomb": (lambda: [bomb()], "body_too_large"),
    "members without end": (lambda: [many_members()], "too_many_items"),
    "files without end": (lambda: [b"x"] * 101, "too_many_items"),
    "zips within a zip": (
        lambda: [zipped({"a": zipped({"b": FILES[0]})})],
        "unsupported_media_type",
    ),
    "zips as parts": (lambda: [zipped({"a": FILES[0]})] * 2, "unsupported_media_type"),
    "another compression": (
        lambda: [zipped(in_folders(FILES[:2]), zipfile.ZIP_LZMA)],
        "unsupported_media_type",
    ),
    "text": (lambda: [TEXT], "unsupported_media_type"),
    "zip of texts": (lambda: [zipped({"a": TEXT, "b": TEXT})], "unsupported_media_type"),
    "two files of volumes": (lambda: [zipped({"a": nifti(), "b": nifti()})], "several_volumes"),
    "report only": (lambda: [report()], "not_ct"),
    "directory only": (lambda: [zipped({"DICOMDIR": dicomdir()})], "not_ct"),
    "localizers only": (lambda: changed(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "not_ct"),
    "another modality": (lambda: changed(Modality="MR"), "not_ct"),
    "colours only": (lambda: changed(SamplesPerPixel=3), "not_grey"),
    "cut before the pixels": (lambda: [one[:700] for one in FILES], "undecodable_image"),
    "a slice cut within its pixels": (
        lambda: [*FILES[:-1], FILES[-1][:-1000]],
        "undecodable_image",
    ),
    "sizes that lie": (lambda: changed(Rows=200, Columns=300), "undecodable_image"),
    "giant sizes": (lambda: changed(Rows=60000, Columns=60000), "image_too_large"),
    "no size": (lambda: changed(Rows=0), "undecodable_image"),
    "more slices than accepted": (too_many_slices, "volume_too_large"),
    "more frames than accepted": (frames_beyond, "volume_too_large"),
    "fewer frames than announced": (too_few_frames, "undecodable_image"),
    "more bytes than accepted": (lambda: [bytes(600_000), bytes(600_000)], "volume_too_large"),
    "no positions": (lambda: changed(ImagePositionPatient=None), "inconsistent_geometry"),
    "positions that are none": (
        lambda: changed(ImagePositionPatient=["1e300", "0", "0"]),
        "inconsistent_geometry",
    ),
    "no directions": (lambda: changed(ImageOrientationPatient=None), "inconsistent_geometry"),
    "slices aside of each other": (aside, "inconsistent_geometry"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_no_volume_is_refused_by_its_code(name: str) -> None:
    """The sentence says what was expected, and names nothing of the files."""
    make, code = REFUSALS[name]
    refused = refusal(make())
    assert refused.code == code
    assert not {"1.2.3", "Phantom", "PHANTOM", "IM0"} & set(str(refused).split())


def test_values_beyond_the_limit_are_refused_before_they_are_decoded() -> None:
    """The files are small, the volume would not be: 10 slices of 80 KB in 3 KB each."""
    blank = Stack(
        hu=np.zeros((10, 200, 200), np.int16),
        positions=WHOLE.positions[:10],
        row=WHOLE.row,
        column=WHOLE.column,
    )
    files = [compressed(one, uid.RLELossless) for one in instances(blank)]
    limits = VolumeLimits(max_bytes=400_000)
    assert sum(map(len, files)) < 100_000
    decoded: list[str] = []
    refused = refusal(files, limits=limits, progress=lambda stage, *_: decoded.append(stage))
    assert refused.code == "volume_too_large"
    assert "decode" not in decoded


def test_a_grid_within_a_zip_is_read() -> None:
    """Whatever lies beside it."""
    volume = read_volume([zipped({"scan/ct.nii": nifti(), "scan/notes.txt": TEXT})], unit="HU")
    assert volume.scan.values.shape == (4, 4, 4)
    assert volume.scan.media_type == "application/x-nifti"


def test_progress_tells_of_every_file_and_slice_and_can_end_the_work() -> None:
    told: list[tuple[str, int, int]] = []
    read_volume(FILES[:4], progress=lambda *event: told.append(event))
    assert told == [("read", k, 4) for k in range(1, 5)] + [("decode", k, 4) for k in range(1, 5)]

    def leave(stage: str, done: int, _total: int) -> None:
        if (stage, done) == ("decode", 2):
            raise TimeoutError

    with pytest.raises(TimeoutError):
        read_volume(FILES, progress=leave)


def test_an_offset_that_lacks_is_suspected() -> None:
    """Air at 0: stored values whose intercept got lost."""
    assert "intensity_offset_suspect" in read_volume(changed(RescaleIntercept="0")).scan.notes
    assert "intensity_offset_suspect" not in read_volume(FILES).scan.notes
    assert read_volume(FILES).scan.values.max() == BEAD_HU
