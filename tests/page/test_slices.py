"""Slices on the page, as people meet them: what is dropped is seen, told and can be kept."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.page import LOADED
from lungseg.core.types import LEFT, RIGHT
from lungseg.formats.write import COLOURS_RGB
from tests.conftest import encode
from tests.page.conftest import Visit, focused
from tests.serving import Running, running
from training.synthetic.phantom import dicom_bytes, make_phantom, picture

SMALL = (97, 131)
"""Small enough that one of its pixels has several on the screen."""
KEY = "s\u00e9cret-\u30ab\u30ae"
"""Keys may be any text without blanks; headers of browsers hold less."""
GROUNDS = "(all) => all.map((one) => getComputedStyle(one).backgroundColor)"
MOST_BYTES = 150 * 1024
"""What a first view may have."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A slice with a header, one without, and a file that is none."""
    folder = tmp_path_factory.mktemp("files")
    phantom = make_phantom(SMALL, seed=3)
    contents = {
        "slice.dcm": dicom_bytes(phantom),
        "other.dcm": dicom_bytes(make_phantom(SMALL, seed=4)),
        "picture.png": encode(picture(phantom), "PNG"),
        "notes.txt": b"no slice at all",
        "pages.tif": pages(picture(phantom)),
        "scan.nrrd": b"NRRD0004\nwithout anything behind it\n\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


def pages(grey: np.ndarray) -> bytes:
    """A TIFF of two pictures, which is no scan."""
    content, page = io.BytesIO(), Image.fromarray(grey)
    page.save(content, "TIFF", save_all=True, append_images=[page])
    return content.getvalue()


@pytest.fixture(scope="module")
def guarded(models: Path) -> Iterator[Running]:
    """A service with a key, below a path, that takes little."""
    changes = {"api_keys": KEY, "root_path": "/lungs", "max_body_bytes": 200_000}
    with running(models, **changes) as started:
        yield started


def parts_of(service: Running, file: Path) -> dict[str, bytes]:
    """What the service answers as a zip."""
    answer = service.client.post("/segment?format=zip", content=file.read_bytes())
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def seen(page: Any) -> np.ndarray:
    """The pixels of the large canvas, shape (Y, X, 3)."""
    address = page.evaluate("document.querySelector('.stage canvas').toDataURL()")
    content = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def on_canvas(shape: tuple[int, int], canvas: tuple[int, int], aspect: float) -> Any:
    """Where row and column of a fitted slice lie on the canvas."""
    across = min(canvas[1] / shape[1], canvas[0] / (shape[0] * aspect))
    down = across * aspect
    top, left = (canvas[0] - shape[0] * down) / 2, (canvas[1] - shape[1] * across) / 2

    def place(row: Any, column: Any) -> tuple[Any, Any]:
        return (
            np.floor(top + np.asarray(row) * down).astype(int),
            np.floor(left + np.asarray(column) * across).astype(int),
        )

    return place


def test_a_dropped_slice_is_told_in_words_and_figures(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """The figures are the service's own, in units that people use, and one request brings them."""
    visit: Visit = visits(service)
    page = visit.open()
    assert page.get_by_text("Research use only").is_visible()
    visit.drop(files["slice.dcm"])
    assert "Lungs outlined" in visit.status("outlined")
    statistics = json.loads(parts_of(service, files["slice.dcm"])["statistics.json"])["statistics"]
    row = page.get_by_role("row", name=re.compile("^Area"))
    areas = [
        f"{part['area_mm2'] / 100:.1f}" for part in (*statistics["lungs"].values(), statistics)
    ]
    assert row.get_by_role("cell").all_inner_texts() == areas
    marks = [page.locator(f".mark.{side}").inner_text() for side in ("left", "right", "top")]
    assert marks == ["R", "L", "A"]
    assert page.locator(".scale").inner_text() == "10 cm"
    box = page.locator(".stage canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert re.search(r"\d HU · .*[RL] \d+\.\d .*mm", page.locator(".readout").inner_text())
    assert page.get_by_text("Research use only").is_visible()
    posted = [request for request in visit.requests if request.method == "POST"]
    assert len(posted) == 1
    assert visit.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_the_picture_shows_the_mask_and_nothing_else(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """Tint and outline are compared pixel by pixel with the labels that the service answered."""
    parts = parts_of(service, files["slice.dcm"])
    labels = np.load(io.BytesIO(parts["labels.npy"]))
    assert set(np.unique(labels)) == {0, RIGHT, LEFT}
    spacing = json.loads(parts["statistics.json"])["image"]["spacing_mm"]
    visit: Visit = visits(service, width=1600, height=1000)
    page = visit.open()
    visit.drop(files["slice.dcm"])
    visit.status("outlined")
    page.get_by_role("checkbox", name="Outline").uncheck()
    page.get_by_label("Tint").fill("100")
    pixels = seen(page)
    place = on_canvas(labels.shape, pixels.shape[:2], spacing[0] / spacing[1])
    rows, columns = np.indices(labels.shape)
    centres = pixels[place(rows + 0.5, columns + 0.5)]
    for label in (RIGHT, LEFT):
        assert (centres[labels == label] == COLOURS_RGB[label]).all()
    grey = centres[labels == 0]
    assert (grey == grey[:, :1]).all()
    page.get_by_label("Tint").fill("0")
    page.get_by_role("checkbox", name="Outline").check()
    pixels = seen(page)
    for before, after, at in (
        (labels[:, :-1], labels[:, 1:], (rows[:, 1:] + 0.5, columns[:, 1:])),
        (labels[:-1], labels[1:], (rows[1:], columns[1:] + 0.5)),
    ):
        edges = pixels[place(*at)]
        for label in (RIGHT, LEFT):
            border = (np.minimum(before, after) == 0) & (np.maximum(before, after) == label)
            assert (edges[border] == COLOURS_RGB[label]).all()
        inside = edges[before == after]
        assert (inside == inside[:, :1]).all()  # grey: no outline where no border is


def test_bad_files_fail_alone_and_say_what_helps(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """In a batch the others are there all the same, to flick through or side by side."""
    visit: Visit = visits(service)
    visit.allowed |= {"415", "422"}
    page = visit.open()
    visit.drop(files["pages.tif"])
    page.locator("#slices .card.bad[data-code=multi_frame]").wait_for()
    visit.drop(files["slice.dcm"], files["notes.txt"], files["picture.png"])
    visit.status("2 of 3 slices are ready, 1 could not be used")
    page.locator(".stage canvas").focus()
    page.keyboard.press("PageDown")
    card = page.locator(".panel .card.bad")
    assert "notes.txt: The content is of no accepted format" in card.inner_text()
    assert "Expected PNG, JPEG" in card.inner_text()
    assert card.get_by_role("button", name="Try again").is_visible()
    page.keyboard.press("PageDown")
    doubts = page.locator(".flags li")
    codes = doubts.evaluate_all("all => all.map((one) => one.dataset.code)")
    assert codes[:2] == ["not_calibrated_hu", "spacing_unknown"]
    assert "say which window" in doubts.first.inner_text()
    assert page.locator(".mark.left.assumed").inner_text() == "R"
    page.get_by_role("button", name="Side by side").click()
    assert page.locator(".stage").count() == 3
    assert page.locator(".stage canvas[aria-label*='outlined']").count() == 2
    boxes = [stage.bounding_box() for stage in page.locator(".stage").all()]
    (left, right, below) = boxes
    assert right["x"] >= left["x"] + left["width"]
    assert below["y"] >= left["y"] + left["height"]


def test_what_a_picture_does_not_say_can_be_told(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """A pasted picture gets its HU and areas by the window and the spacing that are told."""
    visit: Visit = visits(service)
    page = visit.open()
    visit.drop(files["picture.png"], paste=True)
    visit.status("outlined")
    page.get_by_text("Tell what this file does not say").click()
    visit.allowed.add("422")
    for black, white in (("400", "-1000"), ("-1000", "400")):  # what was wrong can be mended
        for name, value in {"Black is": black, "White is": white, "Rows": "2.7"}.items():
            page.get_by_label(name).fill(value)
        page.get_by_role("button", name="Measure again").press("Enter")
        if black == "400":
            page.locator(".card.bad[data-code=invalid_parameter]").wait_for()
            assert focused(page) == "Measure again"
    page.get_by_role("row", name=re.compile("^Area")).wait_for()
    assert "Hounsfield units" in page.locator(".facts").inner_text()


def test_downloads_are_the_services_own(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """Mask, picture, figures, table and DICOM SEG, byte for byte, and those of a whole batch."""
    visit: Visit = visits(service)
    page = visit.open()
    visit.drop(files["slice.dcm"], files["other.dcm"])
    visit.status("2 of 2 slices are ready")

    def kept(button: str) -> bytes:
        with page.expect_download() as download:
            page.get_by_role("button", name=button, exact=True).click()
        return Path(download.value.path()).read_bytes()

    content = files["slice.dcm"].read_bytes()
    for button, form in {
        "Mask, PNG": "png",
        "Picture, PNG": "overlay",
        "DICOM SEG": "dicom-seg",
    }.items():
        answer = service.client.post(f"/segment?format={form}", content=content)
        assert kept(button) == answer.content, form
    figures = json.loads(kept("Figures, JSON"))
    assert figures["mask"]["counts"]
    lines = kept("Table of all, CSV").decode().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["filename", "slice.dcm", "other.dcm"]
    assert len(kept("Table, CSV").decode().splitlines()) == 2
    with zipfile.ZipFile(io.BytesIO(kept("All masks and table, ZIP"))) as archive:
        assert len(archive.namelist()) == 3


def press_until(page: Any, key: str, there: str) -> None:
    """Presses a key until what matches a selector has the focus."""
    for _ in range(25):
        if page.evaluate("(there) => document.activeElement.matches(there)", there):
            return
        page.keyboard.press(key)
    raise AssertionError(there)


def test_everything_works_without_a_mouse(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """From the first tab to the sample's values and windows; focus is where the eye is."""
    visit: Visit = visits(service)
    visit.allowed.add("415")
    page = visit.open()
    press_until(page, "Tab", "#sample-slice")
    page.keyboard.press("Enter")
    visit.status("outlined")
    assert focused(page) == "chest.dcm"
    press_until(page, "Shift+Tab", "canvas")
    page.keyboard.press("2")
    assert page.get_by_label("Mediastinum").is_checked()
    assert page.locator(".stage .window").inner_text().split() == ["C", "40", "W", "400"]
    page.keyboard.press("ArrowRight")
    first = page.locator(".readout").inner_text()
    page.keyboard.press("ArrowDown")
    assert "HU" in first != page.locator(".readout").inner_text()
    page.keyboard.press("+")
    assert page.locator("output.zoom").inner_text() == "125 %"
    page.keyboard.press("h")
    assert not page.get_by_role("checkbox", name="Outline").is_checked()
    page.emulate_media(forced_colors="active")
    assert len({*page.locator("[name=window] + span").evaluate_all(GROUNDS)}) == 2  # one is chosen
    picture = page.get_by_role("button", name="Picture, PNG")
    box = picture.bounding_box()
    page.set_viewport_size({"width": 1280, "height": int(box["y"] + box["height"]) + 5})
    picture.focus()  # it would lie behind the line below
    assert picture.bounding_box()["y"] + box["height"] < page.locator("footer").bounding_box()["y"]
    with page.expect_download():
        page.keyboard.press("Enter")
    visit.status("handed to your browser")
    assert focused(page) == "Picture, PNG"
    page.get_by_role("button", name="New files").press("Enter")
    assert page.evaluate("document.activeElement.id") == "choose"
    page.locator("#files").set_input_files(files["notes.txt"])
    visit.status("could not be used")
    assert focused(page) == page.locator(".card.bad h3").inner_text()
    page.get_by_role("button", name="Try again").press("Enter")
    page.wait_for_function("() => !document.querySelector('.busy')")
    assert focused(page) == page.locator(".card.bad h3").inner_text()


def test_drag_and_wheel_change_contrast_and_size(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """Dragging is contrast, with Shift it moves; the wheel zooms a single slice."""
    visit: Visit = visits(service)
    page = visit.open()
    visit.drop(files["slice.dcm"])
    visit.status("outlined")
    box = page.locator(".stage canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag() -> None:
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 60, y - 30, steps=3)
        page.mouse.up()

    drag()
    assert page.get_by_label("Width").input_value() != "1500"
    assert int(page.get_by_label("Centre").input_value()) < -600  # upwards is brighter
    before = seen(page)
    page.keyboard.down("Shift")
    drag()
    page.keyboard.up("Shift")
    moved = seen(page)
    assert (moved[:-30, 60:] == before[30:, :-60]).mean() > 0.99
    page.mouse.wheel(0, -120)
    assert page.locator("output.zoom").inner_text() == "125 %"


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_width_and_colour_can_be_read_by_everybody(
    visits: Any, service: Running, files: dict[str, Path], width: int, colours: str
) -> None:
    """Nothing is cut off, and axe finds nothing serious at the start, in slices and in errors."""
    visit: Visit = visits(service, width=width, color_scheme=colours, reduced_motion="reduce")
    visit.allowed.add("415")
    page = visit.open()
    page.get_by_text("lungseg 0").wait_for(state="attached")

    assert page.evaluate("document.documentElement.dataset.theme") == colours
    visit.check_access()
    visit.drop(files["picture.png"], files["notes.txt"])
    visit.status("1 of 2 slices are ready")
    visit.check_access()
    page.locator(".strip button").nth(1).click()
    page.locator(".card.bad").wait_for()
    visit.check_access()


def test_a_key_is_asked_for_and_kept_for_the_tab_alone(
    visits: Any, guarded: Running, files: dict[str, Path]
) -> None:
    """Below a path: a wrong key is told, the right one opens page and interface alike."""
    visit: Visit = visits(guarded)
    visit.allowed.add("401")
    page = visit.open("/lungs")
    assert page.url.endswith("/lungs/")
    page.get_by_role("button", name="Enter key").wait_for()
    visit.drop(*[files["slice.dcm"]] * 5)
    why = page.locator("#key-why").text_content()
    page.get_by_role("button", name="Not now").click()
    visit.status("5 could not be used")  # nobody is asked for each of them
    page.get_by_role("button", name="Try again").click()
    for key in ("wrong", KEY):
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Use this key").click()
        if key == "wrong":
            page.get_by_text("does not know that key").wait_for()
    visit.status("5 of 5 slices are ready")
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.get_by_role("button", name="Change key").click()
    assert page.locator("#key-why").inner_text() == why
    page.keyboard.press("Escape")
    page.get_by_role("link", name="API", exact=True).click()
    page.get_by_text("Segment one CT slice").wait_for()
    assert page.get_by_text("Research use only.", exact=True).is_visible()
    page.get_by_role("link", name="Back to the page").click()
    page.get_by_role("button", name="Change key").wait_for()


def test_files_that_are_too_large_are_not_sent(
    visits: Any, guarded: Running, tmp_path: Path
) -> None:
    """The limit is known before; the sentence has both sizes."""
    visit: Visit = visits(guarded)
    page = visit.open("/lungs/")
    (tmp_path / "large.png").write_bytes(bytes(300_000))
    visit.drop(tmp_path / "large.png")
    card = page.locator(".panel .card.bad")
    card.wait_for()
    assert "at most 195.3 KiB, this has 293.0 KiB" in card.inner_text()
    assert [request for request in visit.requests if request.method == "POST"] == []


def test_a_server_that_is_away_or_busy_is_told_and_tried_again(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """The file stays at hand; one that is busy is asked again without being told to."""
    visit: Visit = visits(service)
    visit.allowed |= {"ERR_INTERNET_DISCONNECTED", "422", "503"}
    page = visit.open()
    page.get_by_text("lungseg 0").wait_for()
    page.context.set_offline(True)
    visit.drop(files["slice.dcm"])
    visit.status("cannot be reached")
    visit.drop(files["scan.nrrd"])
    page.locator("#start .card.bad[data-code=unreachable]").wait_for()
    page.context.set_offline(False)
    visit.drop(files["scan.nrrd"])
    page.locator("#scan .card.bad[data-code=undecodable_image]").wait_for()
    page.context.set_offline(True)
    visit.drop(files["slice.dcm"])
    visit.status("cannot be reached")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    visit.status("outlined")
    workers = service.state.workers
    with service.busy(workers.threads + workers.queue_size):
        visit.drop(files["slice.dcm"], files["other.dcm"])
        visit.status("busy")
    visit.status("2 of 2 slices are ready.")


def test_the_page_works_below_a_path_that_a_gateway_takes_off(
    visits: Any, service: Running, files: dict[str, Path]
) -> None:
    """The service need not know it; the first view stays small."""
    visit: Visit = visits(service)
    visit.page.route(
        "**/deep/down/**",
        lambda route: route.continue_(url=route.request.url.replace("/deep/down/", "/")),
    )
    page = visit.open("/deep/down/")
    page.get_by_text("lungseg 0").wait_for()
    size_bytes, _ = page.evaluate(LOADED)
    assert 20_000 < size_bytes < MOST_BYTES
    visit.drop(files["slice.dcm"])
    visit.status("outlined")
    asked = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(asked) > 10
    assert [address for address in asked if "/deep/down/" not in address] == []
