"""Scans on the page: what is dropped is seen in three planes, told, compared and can be kept."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from lungseg.core.types import LEFT, RIGHT
from lungseg.formats.archive import write_archive
from lungseg.formats.write import COLOURS_RGB
from lungseg.inference.session import Session
from lungseg.packaged import models_folder, page_folder
from lungseg.volumes import SLAB_SLICES
from tests.page.conftest import Visit, focused
from tests.serving import PATIENCE_S, Running, running, wait_until
from tests.volume.grids import affine_of, nifti, npy
from tests.volume.series import sent
from tests.web.test_volume import AFFINE, SLICES, SPACING_MM, chest, series, zipped

NIIVUE_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
"""Of ``dist/niivue.umd.js`` in the package of npm."""
SMALLER = chest().copy()
SMALLER[: SLICES // 2 - 2] = 40
"""Lungs that end higher up, as in a shallower breath."""
LONG = 160
"""Slices of a scan that takes its time."""
PLANES = ("axial", "coronal", "sagittal")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A study in a folder, volumes that lie in several ways, and what is refused."""
    folder = tmp_path_factory.mktemp("scans")
    (folder / "study").mkdir()
    for number, content in enumerate(series()):
        (folder / "study" / f"{number}.dcm").write_bytes(content[132:])  # some lack preambles
    (folder / "study" / "viewer.zip").write_bytes(write_archive({"autorun.inf": b"of a CD"}))
    plain = nifti(chest(), AFFINE)
    contents = {
        "chest.nii": plain,
        "long.nii": nifti(np.repeat(chest()[:, ::2, ::2], 8, axis=0), AFFINE),
        "smaller.nii": nifti(SMALLER, AFFINE),
        "study.zip": zipped(),
        "two.nii": two_phases(),
        "plain.npy": npy(chest()),
        "empty.dcm": bytes(128) + b"DICM",
        "damaged.nrrd": b"NRRD0004\nand nothing that makes sense\n\n",
    }
    for axes in ("PIR", "SRA"):
        turned = nibabel.Nifti1Image.from_bytes(plain)
        way = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(turned.affine), nibabel.orientations.axcodes2ornt(axes)
        )
        contents[f"{axes}.nii"] = turned.as_reoriented(way).to_bytes()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in (*contents, "study")}


def two_phases() -> bytes:
    """Two volumes in one file."""
    values = np.stack([SMALLER, chest()], axis=-1).transpose(2, 1, 0, 3)
    ras = np.diag([-1.0, -1, 1, 1]) @ AFFINE[:, [2, 1, 0, 3]]
    return nibabel.Nifti1Image(values, ras).to_bytes()


def opened(visit: Visit, file: Path, page: Any = None) -> Any:
    """The page with a scan, drawn whole."""
    page = page or visit.open()
    visit.drop(file)
    return drawn(page)


def drawn(page: Any) -> Any:
    page.locator(".planes[data-state=ready]").wait_for(timeout=PATIENCE_S * 1000)
    page.locator(".surfaces[data-state]").wait_for(timeout=PATIENCE_S * 1000)
    return page


def pictures(page: Any) -> dict[str, np.ndarray]:
    """Pixels of the canvas of each plane, (Y, X, 3)."""
    found: dict[str, np.ndarray] = {}
    for name in PLANES:
        address = page.locator(f".{name} canvas").evaluate("(canvas) => canvas.toDataURL()")
        content = base64.b64decode(address.partition(",")[2])
        found[name] = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    return found


def answer_of(service: Running, content: bytes) -> dict[str, Any]:
    return service.client.post("/segment/volume", content=content).json()


def row_of(page: Any, name: str) -> list[str]:
    """What the table of figures says in a row."""
    row = page.locator("tr", has=page.get_by_role("rowheader", name=name)).first
    return [
        cell.replace("\u202f", "").replace("\xa0", " ")
        for cell in row.locator("td").all_inner_texts()
    ]


def test_a_folder_is_seen_told_and_kept_by_one_request(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """Figures are the service's; nothing of scans is loaded before one comes, NiiVue least."""
    visit: Visit = visits(service, width=1600, height=1000)
    page = visit.open()
    page.wait_for_load_state("networkidle")
    assert not any("scan" in one.url or "niivue" in one.url for one in visit.requests)
    page.locator("#folder").set_input_files(files["study"])
    drawn(page)
    statistics = answer_of(service, files["study.zip"].read_bytes())["statistics"]
    lungs = [statistics["lungs"]["right"], statistics["lungs"]["left"], statistics]
    assert row_of(page, "Volume") == [f"{lung['volume_ml']:.0f} ml" for lung in lungs]
    assert row_of(page, "Mass") == [f"{lung['mass_g']:.0f} g" for lung in lungs]
    assert page.get_by_role("heading", name="study").is_visible()
    assert page.locator(".flags, .card.good").first.is_visible()
    posted = [one for one in visit.requests if "segment/volume" in one.url]
    assert len(posted) == 1
    assert any("niivue" in one.url for one in visit.requests)
    with page.expect_download() as kept:
        page.get_by_role("button", name="All, ZIP").click()
    with zipfile.ZipFile(kept.value.path()) as archive:
        figures = archive.read("statistics.json")
    assert json.loads(figures)["statistics"] == statistics
    with page.expect_download() as kept:
        page.get_by_role("button", name="Figures, JSON").click()
    assert Path(kept.value.path()).read_bytes() == figures
    with page.expect_download() as kept:
        page.get_by_role("button", name="DICOM SEG", exact=True).click()
    assert kept.value.suggested_filename == "study_seg.dcm"
    assert Path(kept.value.path()).read_bytes()[128:132] == b"DICM"


def test_planes_show_the_patient_from_the_same_side_however_the_file_lies(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """The right lung is blue and at the left, and turned files give the very same pictures."""
    visit: Visit = visits(service)
    page = opened(visit, files["chest.nii"])
    page.get_by_label("Tint").fill("100")
    expected = pictures(page)
    for side, label in ((0, RIGHT), (1, LEFT)):
        half = np.array_split(expected["axial"], 2, axis=1)[side]
        assert (half == COLOURS_RGB[label]).all(axis=-1).sum() > 1000
        assert not (half == COLOURS_RGB[3 - label]).all(axis=-1).any()
    marks = page.locator(".coronal .mark").all_inner_texts()
    assert sorted(marks) == ["F", "H", "L", "R"]
    for name in ("PIR.nii", "SRA.nii"):
        page.locator("#new").click()
        opened(visit, files[name], page)
        page.get_by_label("Tint").fill("100")
        for plane, picture in pictures(page).items():
            assert np.array_equal(picture, expected[plane]), (name, plane)


def test_slices_are_reached_by_keys_wheel_slider_and_click(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """All say the same place, and the value and side under the pointer are told."""
    visit: Visit = visits(service, width=1600, height=1000)
    page = opened(visit, files["chest.nii"])
    axial, slider = page.locator(".axial canvas"), page.get_by_label("Axial slice, from the head")

    def place() -> tuple[str | None, str]:
        page.evaluate("() => new Promise(requestAnimationFrame)")
        return axial.get_attribute("aria-valuenow"), slider.input_value()

    axial.focus()
    for key, expected in (
        ("Home", 1),
        ("ArrowDown", 2),
        ("PageDown", 12),
        ("ArrowUp", 11),
        ("End", SLICES),
    ):
        page.keyboard.press(key)
        assert place() == (f"{expected}", f"{expected}")
    top_mm = AFFINE[2, 3] + (SLICES - 1) * SPACING_MM[0]
    page.keyboard.press("Home")
    place()
    assert axial.get_attribute(
        "aria-valuetext"
    ) == f"slice 1 of {SLICES}, at {top_mm:.1f} mm".replace("-", "−")
    slider.fill("9")
    assert place() == ("9", "9")
    axial.hover()
    readout = page.locator(".axial .readout")
    before = readout.inner_text()
    page.mouse.wheel(0, 120)
    assert place() == ("10", "10")
    height, after = (re.findall(r"[HF] [\d.]+ mm", text) for text in (before, readout.inner_text()))
    assert len(height) == len(after) == 1
    assert height != after
    box = axial.bounding_box()
    assert box
    right_lung = (box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.5)
    page.mouse.move(*right_lung)
    assert "right lung" in readout.inner_text()
    page.mouse.click(*right_lung)
    place()
    sagittal = int(page.locator(".sagittal canvas").get_attribute("aria-valuenow"))
    assert sagittal < 120 * 0.45  # of the columns, which begin at the patient's right


def test_two_scans_are_compared_with_what_speaks_against_it_first(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """The table is that of ``/compare``: limits with their source, and no word on what it means."""
    visit: Visit = visits(service, width=1600, height=1000)
    page = opened(visit, files["chest.nii"])
    opened(visit, files["smaller.nii"], page)
    shown = page.locator(".comparison")
    shown.wait_for()
    before, after = (
        answer_of(service, files[name].read_bytes()) for name in ("chest.nii", "smaller.nii")
    )
    found = service.client.post("/compare", json={"before": before, "after": after}).json()
    assert [one["code"] for one in found["warnings"]] == shown.locator(".card.warn").evaluate_all(
        "(cards) => cards.map((card) => card.dataset.code)"
    )
    volume = found["differences"]["both"]["volume_ml"]
    said = [
        text.replace("\u202f", "").replace("\xa0", " ")
        for text in shown.locator("tbody tr").first.locator("td").all_inner_texts()
    ]
    assert said[0] == f"{volume['before']:.0f} ml"
    assert said[2].startswith(f"−{-volume['change']:.0f} ml")
    assert volume["verdict"] is None or volume["verdict"] in said[4]
    text = shown.inner_text().lower()
    assert "progress" not in text
    assert "chong et al. 2011" in shown.locator("details").last.text_content().lower()
    first_card = shown.locator(":scope > *").first
    assert "flags" in (first_card.get_attribute("class") or "")
    page.set_viewport_size({"width": 200, "height": 800})  # 400 pixels at twice the size
    visit.check_access()
    page.get_by_label("Axial slice, from the head").fill("5")
    page.get_by_role("button", name="Swap").press("Enter")
    assert focused(page).startswith("Swap")
    assert page.get_by_label("Axial slice, from the head").input_value() == "5"
    shown.wait_for()
    first = page.locator(".comparison tbody tr").first.locator("td").first
    first.filter(
        has_text=re.compile(rf"^{volume['after']:,.0f}\sml$".replace(",", r"\s"))
    ).wait_for()
    page.get_by_role("button", name="Close the one").press("Enter")
    assert focused(page) == "chest.nii"


def test_what_is_refused_says_what_helps(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """A damaged file in the service's words; of several phases one can be chosen."""
    visit: Visit = visits(service)
    visit.allowed.add("422")
    page = visit.open()
    login = {"body": "<html>\nLog in\n</html>\n", "content_type": "text/html"}
    page.route("**/segment/volume**", lambda route: route.fulfill(**login))
    visit.drop(files["chest.nii"])
    page.locator("#scan .card.bad[data-code=no_problem]").wait_for()  # of a proxy in between
    page.unroute("**/segment/volume**")
    page.locator("#new").click()
    visit.drop(files["damaged.nrrd"])
    card = page.locator("#scan .card.bad")
    card.wait_for()
    assert card.get_attribute("data-code") == "undecodable_image"
    assert card.get_by_role("button", name="Try again").is_visible()
    visit.drop(*[files["empty.dcm"]] * 10)
    page.get_by_role("button", name="Show them as single slices").click()
    visit.status("0 of 10 slices are ready, 10 could not be used.")
    page.locator("#new").click()
    visit.drop(files["two.nii"])
    page.get_by_role("button", name="Volume 2").click()
    drawn(page)
    volume_ml = answer_of(service, files["chest.nii"].read_bytes())["statistics"]["volume_ml"]
    assert row_of(page, "Volume")[2] == f"{volume_ml:.0f} ml"
    page.locator("#new").click()
    opened(visit, files["plain.npy"], page)
    assert "cm²" not in page.locator(".profile").inner_text()
    assert page.locator(".surfaces", has_text="nothing says how far").is_visible()


def test_another_of_several_series_can_be_chosen(
    visits: Any, service: Running, tmp_path: Path
) -> None:
    """The service takes one and says which; the other is one choice away."""
    study = tmp_path / "two.zip"
    several = sent("two series").files
    study.write_bytes(write_archive({f"{k}.dcm": file for k, file in enumerate(several)}))
    visit: Visit = visits(service)
    page = opened(visit, study)
    series = page.get_by_label("2 series came")
    taken = series.input_value()
    series.select_option(index=1 - series.evaluate("(select) => select.selectedIndex"))
    page.locator("#series:not([hidden])").wait_for()
    wait_until(lambda: page.get_by_label("2 series came").input_value() != taken)
    drawn(page)
    assert f"series={page.get_by_label('2 series came').input_value()}" in visit.requests[-1].url


def test_a_scan_can_be_cancelled_and_the_service_ends_its_work(
    visits: Any, service: Running, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a line of progress or two it learns that nobody waits; the files can be sent again."""
    turns, real = threading.Semaphore(0), Session.run

    def run(*args: Any, **how: Any) -> Any:
        assert turns.acquire(timeout=PATIENCE_S)
        return real(*args, **how)

    monkeypatch.setattr(Session, "run", run)
    visit: Visit = visits(service)
    page = visit.open()
    visit.drop(files["long.nii"])
    page.locator(".progress", has_text=f"{LONG} of {LONG}").wait_for()
    page.get_by_role("button", name="Cancel").press("Enter")
    page.locator(".card.bad[data-code=cancelled]").wait_for()
    assert focused(page) == "long.nii: Cancelled"
    workers = service.state.volume_workers
    for _ in range(LONG // SLAB_SLICES // 2):
        turns.release()
        assert service.client.get("/livez").is_success  # and the loop has turned
    wait_until(lambda: workers.running == 0)  # with half of the slabs allowed
    turns.release(LONG)
    page.get_by_role("button", name="Try again").press("Enter")
    drawn(page)
    assert focused(page) == "long.nii"
    visit.drop(files["study"] / "0.dcm")
    visit.status(" ms; ")
    assert page.locator("#scan > *").count() == 0  # it is not only hidden
    visit.drop(files["chest.nii"])
    drawn(page)
    assert page.locator("#slices > *").count() == 0


@pytest.fixture(scope="module")
def small(models: Path) -> Iterator[Running]:
    """A service that takes little."""
    with running(models, max_volume_bytes=2**20) as started:
        yield started


def test_a_scan_that_is_too_large_is_not_sent(visits: Any, small: Running, tmp_path: Path) -> None:
    """The page knows the limit, and says so at once."""
    large = tmp_path / "large.nii"
    large.write_bytes(nifti(np.zeros((30, 160, 160), np.int16), affine_of()))
    visit: Visit = visits(small)
    page = visit.open()
    visit.drop(large)
    page.locator("#scan .card.bad[data-code=body_too_large]", has_text="was not sent").wait_for()
    assert not any("segment/volume" in one.url for one in visit.requests)


def test_without_webgl_only_the_surface_is_missing(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """Planes, tables and downloads need none, and NiiVue is then not even loaded."""
    visit: Visit = visits(service)
    visit.page.add_init_script(
        "const real = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...more) {"
        " return kind.startsWith('webgl') ? null : real.call(this, kind, ...more); };"
    )
    page = opened(visit, files["chest.nii"])
    assert page.locator(".surfaces", has_text="no WebGL").is_visible()
    assert not any("niivue" in one.url for one in visit.requests)
    assert row_of(page, "Volume")[0].endswith("ml")
    with page.expect_download() as kept:
        page.get_by_role("button", name="Mask, NIfTI").click()
    mask = nibabel.Nifti1Image.from_bytes(gzip.decompress(Path(kept.value.path()).read_bytes()))
    assert mask.shape == chest().shape[::-1]


COUNT_READINGS = """
  globalThis.longReadings = 0;
  const {get} = Object.getOwnPropertyDescriptor(XMLHttpRequest.prototype, "responseText");
  Object.defineProperty(XMLHttpRequest.prototype, "responseText", {get() {
    const text = get.call(this);
    if (text.length > 100000) globalThis.longReadings += 1;
    return text;
  }});
"""
"""Of answers that are still coming, each reading of which copies all that has come."""


def test_the_sample_scan_is_shown_with_its_source(visits: Any) -> None:
    """One press on a phone, and a scan that may be shown is there, with lungs as they should be.

    Its long answer is read once, since each reading copies all that has come.
    """
    with running(models_folder(), model="lung-unet") as real:
        visit: Visit = visits(real, width=400, height=800, color_scheme="dark")
        visit.page.add_init_script(COUNT_READINGS)
        page = visit.open()
        page.locator("#sample-scan").click()
        drawn(page)
        assert page.get_by_text("LIDC-IDRI").is_visible()
        assert page.locator(".card.good").is_visible()
        assert 3400 < float(row_of(page, "Volume")[2].removesuffix(" ml")) < 4100
        assert page.evaluate("longReadings") == 1
        visit.check_access()


def test_niivue_is_the_file_that_was_published(service: Running) -> None:
    """It goes out packed as it lies, and unpacked it is the package's."""
    answer = service.client.get("/page/vendor/niivue.umd.js.gz")
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-type"].startswith("text/javascript")
    assert hashlib.sha256(answer.content).hexdigest() == NIIVUE_SHA256
    licence = page_folder() / "vendor" / "LICENSE"
    assert "Redistribution and use" in licence.read_text()
