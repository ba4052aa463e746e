"""One slice in, one mask out, over real HTTP."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from lungseg.forms import compact, summary
from lungseg.inference.model import Model
from lungseg.inference.session import Engine
from lungseg.pipeline import AS_THE_MODEL_SAYS, Outcome, Pipeline
from tests.conftest import encode
from training.synthetic.phantom import Phantom, picture

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools' own


def png_mask(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    picture = Image.open(io.BytesIO(response.content))
    assert picture.mode == "L"
    return np.asarray(picture)


def test_json_png_npy_and_statistics_agree_to_the_pixel(
    client: httpx.Client, grey_png: bytes, phantom: Phantom
) -> None:
    answer = client.post("/segment", content=grey_png).json()
    mask = png_mask(client.post("/segment?format=png", content=grey_png))
    npy = np.load(io.BytesIO(client.post("/segment?format=npy", content=grey_png).content))
    assert mask.shape == phantom.hu.shape
    assert set(np.unique(mask)) == {0, 255}
    assert np.array_equal(coco.decode(answer["mask"]) * 255, mask)
    assert np.array_equal(npy, mask > 0)
    assert answer["statistics"]["pixels"] == np.count_nonzero(mask)
    assert answer["mask"]["size"] == list(phantom.hu.shape)
    assert answer["image"]["width"] == phantom.hu.shape[1]


def test_the_phantoms_lungs_are_in_the_mask(
    client: httpx.Client, dicom: bytes, phantom: Phantom
) -> None:
    mask = png_mask(client.post("/segment?format=png&threshold=0.1", content=dicom)) > 0
    covered = np.count_nonzero(mask & phantom.lungs) / np.count_nonzero(phantom.lungs)
    assert covered > 0.9


def test_dicom_gives_hu_and_millimetres(
    client: httpx.Client, dicom: bytes, phantom: Phantom
) -> None:
    answer = client.post("/segment", content=dicom).json()
    spacing = answer["image"]["spacing_mm"]
    assert answer["image"]["intensity_unit"] == "HU"
    assert spacing == pytest.approx(phantom.spacing_mm)
    statistics = answer["statistics"]
    area = statistics["pixels"] * spacing[0] * spacing[1]
    assert statistics["area_mm2"] == pytest.approx(area, rel=1e-6)
    assert 0 <= statistics["density"]["laa_950"] <= 1
    assert statistics["laterality"] == "dicom_orientation"


def test_unknown_values_are_null_and_known_ones_can_be_given(
    client: httpx.Client, grey_png: bytes
) -> None:
    plain = client.post("/segment", content=grey_png).json()["statistics"]
    assert plain["area_mm2"] is None
    assert plain["density"] is None
    query = {"spacing_mm": "0.8,0.5", "window_hu": "-1000,400"}
    told = client.post("/segment", content=grey_png, params=query).json()
    assert told["image"]["spacing_mm"] == [0.8, 0.5]
    assert told["statistics"]["intensity"]["unit"] == "HU"
    assert told["statistics"]["area_mm2"] > 0


def test_multipart_and_raw_bodies_give_the_same_mask(client: httpx.Client, grey_png: bytes) -> None:
    raw = client.post("/segment?format=png", content=grey_png)
    form = client.post("/segment?format=png", files={"file": ("x.txt", grey_png, "text/plain")})
    assert form.status_code == 200
    assert form.content == raw.content


def test_the_same_slice_in_other_grey_encodings_gives_the_same_mask(
    client: httpx.Client, phantom: Phantom
) -> None:
    grey = picture(phantom)
    rgb = np.repeat(grey[..., None], 3, axis=2)
    rgba = np.dstack([rgb, np.full_like(grey, 255)])
    palette = io.BytesIO()
    Image.fromarray(grey).convert("P").save(palette, "PNG")
    reference = png_mask(client.post("/segment?format=png", content=encode(grey, "PNG")))
    others = {
        "16 bit": encode(grey.astype(np.uint16) * 257, "PNG"),
        "rgb": encode(rgb, "PNG"),
        "rgba": encode(rgba, "PNG"),
        "palette": palette.getvalue(),
        "bmp": encode(grey, "BMP"),
        "tiff": encode(grey, "TIFF"),
    }
    for name, content in others.items():
        mask = png_mask(client.post("/segment?format=png", content=content))
        assert np.array_equal(mask, reference), name


def test_the_same_bytes_give_the_same_bytes(client: httpx.Client, dicom: bytes) -> None:
    for form in ("png", "overlay", "probability", "npy"):
        first, second = (client.post(f"/segment?format={form}", content=dicom) for _ in range(2))
        assert first.content == second.content
        assert first.headers["x-segmentation"] == second.headers["x-segmentation"]
    first, second = (client.post("/segment", content=dicom).json() for _ in range(2))
    for changing in ("request_id", "timings_ms"):
        del first[changing], second[changing]
    assert first == second


def test_accept_chooses_the_form_and_format_overrules_it(
    client: httpx.Client, grey_png: bytes
) -> None:
    def media_type(query: str, accept: str) -> str:
        response = client.post(f"/segment{query}", content=grey_png, headers={"Accept": accept})
        return response.headers["content-type"]

    assert media_type("", "image/png") == "image/png"
    assert media_type("", "*/*") == "application/json"
    assert media_type("", "image/png;q=0.4, application/json") == "application/json"
    assert media_type("", "application/x-npy, image/png") == "application/x-npy"
    assert media_type("", "image/png;q=0") == "application/json"
    assert media_type("", "image/png;q=much") == "application/json"
    assert media_type("?format=json", "image/png") == "application/json"


@pytest.mark.parametrize("form", ["png", "overlay", "probability", "npy"])
def test_binary_answers_carry_the_json_answer_in_a_header(
    client: httpx.Client, dicom: bytes, form: str
) -> None:
    answer = client.post("/segment", content=dicom).json()
    response = client.post(f"/segment?format={form}", content=dicom)
    header = response.headers["x-segmentation"]
    assert len(header) <= 4096
    for left_out in ("mask", "request_id", "timings_ms"):
        del answer[left_out]
    assert json.loads(header) == answer
    parts = [part.split(";")[0] for part in response.headers["server-timing"].split(", ")]
    assert parts == ["decode", "queue", "inference", "postprocess", "encode"]


def test_request_ids_are_taken_when_harmless_and_made_otherwise(
    client: httpx.Client, grey_png: bytes
) -> None:
    given = client.post("/segment", content=grey_png, headers={"X-Request-ID": "scan-7.a_B"})
    assert given.headers["x-request-id"] == given.json()["request_id"] == "scan-7.a_B"
    longest = "Z" * 128
    assert (
        client.get("/livez", headers={"X-Request-ID": longest}).headers["x-request-id"] == longest
    )
    for bad in ("a b", "x" * 129, "<script>", ""):
        made = client.get("/livez", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert made != bad
        assert len(made) == 32


def test_every_encoding_is_answered(client: httpx.Client, grey_png: bytes) -> None:
    names = client.get("/openapi.json").json()["components"]["schemas"]["Mask"]
    for encoding in names["properties"]["encoding"]["enum"]:
        answer = client.post(f"/segment?encoding={encoding}", content=grey_png)
        assert answer.status_code == 200
        assert answer.json()["mask"]["encoding"] == encoding


def test_the_threshold_moves_the_border(client: httpx.Client, dicom: bytes) -> None:
    pixels = [
        client.post(f"/segment?threshold={t}", content=dicom).json()["statistics"]["pixels"]
        for t in (0.1, 0.5, 0.9)
    ]
    assert pixels[0] > pixels[1] > pixels[2]


def named(outcome: Outcome, name: str) -> Outcome:
    """The outcome as that of a model of another name."""
    contract = outcome.model.contract.model_copy(update={"name": name})
    return replace(outcome, model=replace(outcome.model, contract=contract))


def test_a_header_is_never_longer_than_gateways_take(models: Path, dicom: bytes) -> None:
    """Of the statistics the lungs go first, then density and intensity; the rest stays whole."""
    model = Model.load(models / "standin" / "1", Engine())
    outcome = Pipeline().segment(dicom, model, AS_THE_MODEL_SAYS)
    whole = json.loads(summary(named(outcome, "").describe()))
    room = 4096 - len(summary(named(outcome, "").describe()))
    for gone in ((), ("lungs",), ("lungs", "density"), ("lungs", "density", "intensity")):
        for part in gone:
            whole["statistics"].pop(part, None)
        longest = "x" * (4096 - len(compact(whole)))
        whole["model"]["name"] = longest
        assert json.loads(summary(named(outcome, longest).describe())) == whole
        assert len(summary(named(outcome, longest).describe())) == 4096
        assert len(longest) >= room
        whole["model"]["name"] = ""
    with pytest.raises(ValueError, match="not JSON compliant"):
        compact({"mean": float("nan")})
