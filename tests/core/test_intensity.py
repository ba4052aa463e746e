"""Grey levels of uncalibrated slices: scanner padding must not take the contrast."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from lungseg.core.body import body_box
from lungseg.core.preprocess import IntensityRule, percentiles, to_grey, without_padding
from lungseg.core.types import Scan
from tests.serving import running
from tests.standin import write_bundle
from training.data.intensity import pseudo_hu
from training.synthetic.phantom import dicom_bytes, make_phantom

RULE = IntensityRule(skip_padding=True)


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    return make_phantom((200, 240), seed=4).hu.astype(np.float32)


def scan(plane: np.ndarray) -> Scan:
    return Scan(values=plane[None], unit="grey level", media_type="application/x-npy")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Of a service whose model asks for everything that looks at intensities."""
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder, intensity={"skip_padding": True}, grid="body")
    with running(folder) as service:
        yield service.client


def circle(shape: tuple[int, int]) -> np.ndarray:
    y, x = (np.linspace(-1, 1, side)[:, None] for side in shape)
    return y**2 + x.T**2 <= 1.1


@pytest.mark.parametrize("padding", [-3024.0, -2000.0, -1500.0])
def test_padding_outside_the_circle_changes_nothing_inside(hu: np.ndarray, padding: float) -> None:
    """Whatever value a scanner writes there; without the rule it takes the contrast."""
    seen = circle(hu.shape)
    padded = np.where(seen, hu, np.float32(padding))
    plain, with_rule = (to_grey(padded, "grey level", rule) for rule in (IntensityRule(), RULE))
    reference = to_grey(np.where(seen, hu, -1000).astype(np.float32), "grey level", RULE)
    assert np.abs(with_rule[seen] - reference[seen]).mean() < 3
    assert np.abs(plain[seen] - reference[seen]).mean() > 15
    assert (with_rule[~seen] == 0).all()


def test_a_slice_without_padding_keeps_all_its_values(hu: np.ndarray) -> None:
    assert without_padding(hu) is hu
    assert np.array_equal(
        to_grey(hu, "grey level", RULE), to_grey(hu, "grey level", IntensityRule())
    )
    assert np.array_equal(to_grey(hu, "HU", RULE), to_grey(hu, "HU", IntensityRule()))


@pytest.mark.parametrize("low", [-1350.0, -160.0])
def test_black_of_a_window_stays_black(hu: np.ndarray, low: float) -> None:
    """Air, and in a narrow window the lungs, whether they are taken for padding or not."""
    picture = np.rint(np.clip((hu - low) / 400, 0, 1) * 255).astype(np.float32)
    grey = to_grey(picture, "grey level", RULE)
    assert (grey[picture == 0] == 0).all()
    assert grey.max() == 255


@pytest.mark.parametrize("value", [0.0, 7.0, 1e-38, 1e9])
def test_constant_and_tiny_slices_have_no_padding(value: float) -> None:
    """Nor has what resampling's rounding made of them: an ulp of spread is no contrast."""
    for shape in ((1, 1), (3, 2), (64, 64)):
        plane = np.full(shape, value, np.float32)
        plane.flat[::2] = np.nextafter(np.float32(value), np.float32(np.inf))
        assert without_padding(plane) is plane
        assert not to_grey(plane, "grey level", RULE).any()
        assert body_box(plane[None], "grey level").size == shape
        assert np.isfinite(pseudo_hu(scan(plane))).all()


def levels(above: float, **groups: tuple[float, float, int]) -> np.ndarray:
    """4096 groups of four equal pixels, from 0 to 256: from one level to another, and how many.

    The remaining ones begin ``above``.
    """
    cells = [np.linspace(first, last, count) for first, last, count in groups.values()]
    rest = np.linspace(above, 255, 4096 - 64 - sum(map(len, cells)))
    return np.repeat(np.concatenate([*cells, rest, np.full(64, 256)]), 4).astype(np.float32)


PADDING = (0, 0, 500)


@pytest.mark.parametrize(
    ("above", "groups", "removed"),
    [
        # a gap of 0.15 of the range, 38 of 256 levels above the padding's
        (39.5, {"padding": PADDING, "body": (39.5, 39.5, 900)}, 500),
        (38.5, {"padding": PADDING, "body": (38.5, 38.5, 900)}, 0),
        # with less than 0.005 of the pixels in it
        (39.5, {"padding": PADDING, "noise": (20, 20, 20)}, 520),
        (39.5, {"padding": PADDING, "noise": (20, 20, 21)}, 0),
        # padding is the darker minority, which ends in the lower half of the range
        (200, {"padding": (0, 0, 2047)}, 2047),
        (200, {"padding": (0, 0, 2048)}, 0),
        (200, {"padding": (0, 126, 1500), "end": (126.5, 126.5, 30)}, 1530),
        (200, {"padding": (0, 126, 1500), "end": (127.5, 127.5, 30)}, 0),
        (38.5, {"few": (0, 0, 10), "body": (38.5, 38.5, 900)}, 0),
        # metal, up to 0.005 of the pixels, does not widen the range
        (39.5, {"padding": PADDING, "metal": (9e4, 9e4, 20)}, 500),
        (39.5, {"padding": PADDING, "metal": (9e4, 9e4, 30)}, 0),
    ],
)
def test_padding_is_what_an_empty_range_separates_below(
    above: float, groups: dict, removed: int
) -> None:
    """Each condition just met and just not: width, emptiness, share and place of the range."""
    values = levels(above, **groups)
    kept = without_padding(values)
    assert values.size - kept.size == 4 * removed
    assert np.array_equal(np.sort(kept, axis=None), np.sort(values, axis=None)[4 * removed :])


@pytest.mark.parametrize(
    ("values", "flat"),
    [
        ((1, 1 + 3.0e-5), True),
        ((1, 1 + 3.2e-5), False),
        ((-1000, -1000.029), True),
        ((-1000, -1000.032), False),
        ((0, 2e-35), True),
        ((0, 4e-35), False),
    ],
)
def test_contrast_begins_above_the_rounding_of_sums(values: tuple, flat: bool) -> None:
    """3e-5 of an intensity, of the larger one in size; below 1e-30 there is none."""
    plane = np.resize(np.array(values, np.float32), (8, 8))
    grey = to_grey(plane, "grey level", IntensityRule())
    assert grey.max() == (0 if flat else 255)


def test_a_window_and_percentiles_become_black_and_white() -> None:
    """Linearly between them and clipped beyond, of the slice that is given for the percentiles."""
    hu = np.array([[-2000, -1000, -300, 400, 3000]], np.float32)
    assert to_grey(hu, "HU", IntensityRule()).tolist() == [[0, 0, 127.5, 255, 255]]
    grey = np.arange(201, dtype=np.float32)[None]
    assert to_grey(grey, "grey level", IntensityRule())[0, [0, 1, 100, 199, 200]].tolist() == [
        *(0, 0, 127.5, 255, 255)
    ]
    rule = IntensityRule(grey_percentiles=(0, 100))
    assert to_grey(grey[:, :101], "grey level", rule, grey).max() == pytest.approx(127.5)
    ground = np.full((40, 40), 100, np.float32)
    ground[3, 4:6] = 300, 200
    assert to_grey(ground, "grey level", IntensityRule())[3, 3:6].tolist() == [0, 255, 127.5]


@pytest.mark.parametrize(
    "rule",
    [
        {"window_hu": (400, 400)},
        {"window_hu": (400, -1000)},
        {"grey_percentiles": (50, 50)},
        {"grey_percentiles": (-0.1, 99)},
        {"grey_percentiles": (1, 100.1)},
    ],
)
def test_a_rule_that_turns_white_black_is_refused(rule: dict) -> None:
    with pytest.raises(ValueError, match="expected"):
        IntensityRule(**rule)


@pytest.mark.parametrize("size", [1, 2, 7, 201])
def test_percentiles_are_numpys(size: int) -> None:
    """Of any plane and at any percent, the ends included."""
    plane = np.random.default_rng(size).normal(0, 300, (1, size)).astype(np.float32)
    for pair in ((0, 100), (0.5, 99.5), (15, 85), (50, 50.1)):
        assert percentiles(plane, pair) == pytest.approx(np.percentile(plane, pair), abs=1e-3)


def flat_pictures() -> dict[str, np.ndarray]:
    marked = np.full((300, 300), 200, np.uint8)
    marked[140:150, 20:60] = 90
    faint = np.full((300, 300), 1.0, np.float32)
    faint[::2] = np.nextafter(np.float32(1), np.float32(2))
    return {
        "uniform": np.full((300, 300), 200, np.uint8),
        "white": np.full((1080, 1920), 255, np.uint8),
        "marked": marked,
        "one pixel": np.full((1, 1), 9, np.uint8),
        "one line": np.full((1, 3000), 7, np.uint16),
        "two values": np.tile(np.uint8([0, 1]), (300, 150)),
        "an ulp apart": faint,
        "denormal": faint * np.float32(1e-44),
        "far apart": np.where(faint > 1, 1e9, -1e9).astype(np.float32),
    }


@pytest.mark.parametrize("name", flat_pictures())
def test_pictures_without_contrast_get_answers(client: httpx.Client, name: str) -> None:
    """One by one, in a batch and by v2, at every output that stretches intensities."""
    stream = io.BytesIO()
    np.save(stream, flat_pictures()[name])
    content = stream.getvalue()
    for target in ("/segment", "/segment?format=overlay", "/segment?unit=hu"):
        if "hu" not in target or flat_pictures()[name].dtype != np.uint8:
            assert client.post(target, content=content).status_code == 200
    batch = client.post("/segment/batch", files=[("files", ("a.npy", content))])
    assert "error" not in batch.json()["items"][0]
    data = [base64.b64encode(content).decode()]
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": data}
    assert client.post("/v2/models/standin/infer", json={"inputs": [tensor]}).status_code == 200


def test_a_uniform_uncalibrated_dicom_gets_an_answer(client: httpx.Client) -> None:
    """The constant 24, without rescaling."""
    flat = make_phantom((300, 300), seed=1)
    pixels = np.full(flat.hu.shape, 24, np.uint16).tobytes()
    unknown = {"RescaleSlope": None, "RescaleIntercept": None, "RescaleType": None}
    content = dicom_bytes(flat, PixelData=pixels, **unknown)
    assert client.post("/segment", content=content).status_code == 200
