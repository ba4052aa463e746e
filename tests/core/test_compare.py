"""What changed between two scans: differences, the sponge model, warnings, and bad answers."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungseg.core.comparable import MESSAGES
from lungseg.core.compare import MAX_LAA_STRETCH, compare
from lungseg.core.errors import InvalidParameter
from lungseg.core.repeatability import RESCANS
from lungseg.core.volume import Acquisition, Volume
from lungseg.core.volume_report import measure_volume
from tests.core.ellipsoids import cut

STEP = 4.0


def answer(volume: Volume, truth: object) -> dict:
    """As it comes over HTTP, of what is compared."""
    report = asdict(measure_volume(volume, truth))
    members = report | {
        "model": {"name": "lung-unet", "version": "3", "sha256": "ab"},
        "volume": {"spacing_mm": [STEP, 3.0, 2.5]},
        "acquisition": {**asdict(volume.acquisition), "date": None},
    }
    return json.loads(json.dumps(members))


def lungs(stretch: float = 1.0, seed: int = 0) -> dict:
    """A chest whose lung tissue fills so many times the volume, with a tail of dark voxels."""
    volume, truth = cut()
    scan = volume.scan
    density = np.random.default_rng(seed).gamma(6.0, 25.0, scan.values.shape) / stretch
    values = np.where(truth.labels > 0, density - 1000, scan.values + density / 10)
    # Stretched along the rows alone: the same voxels, each of another size.
    scan = replace(scan, values=np.rint(values).astype(np.int16), spacing_mm=(3.0 * stretch, 2.5))
    acquisition = Acquisition(
        kernel="B30f", slice_thickness_mm=4.0, kvp=120.0, contrast=False, manufacturer="One"
    )
    return answer(Volume(scan=scan, acquisition=acquisition), truth)


@pytest.fixture(scope="module")
def before() -> dict:
    return lungs()


def test_the_same_scan_has_not_changed(before: dict) -> None:
    found = compare(before, before)
    assert found["warnings"] == []
    both = found["differences"]["both"]
    assert set(RESCANS) < set(both)
    for name, figure in both.items():
        assert figure["change"] == 0, name
        assert figure["verdict"] == ("within" if name in RESCANS else None)
        assert (figure["repeatability"] is not None) == (name in RESCANS)
    for name in ("mean_hu", "perc15", "laa_950"):
        assert both[name]["adjusted"]["change"] == pytest.approx(0, abs=1e-3)
    assert both["perc15"]["adjusted"]["verdict"] == "within"
    assert json.dumps(found, allow_nan=False).lower().count("progress") == 0


def test_differences_have_their_units_and_the_layout_of_the_statistics(before: dict) -> None:
    after = copy.deepcopy(before)
    after["statistics"]["volume_ml"] += 400
    after["statistics"]["density"]["laa_950"] += 0.02
    after["statistics"]["density"]["perc15"] -= 6
    after["statistics"]["lungs"]["right"]["mass_g"] *= 1.1
    after["statistics"]["thirds"]["left"]["upper"]["intensity"]["mean"] += 7
    found = compare(before, after)["differences"]
    both = found["both"]
    volume = both["volume_ml"]
    assert (volume["unit"], volume["change"], volume["verdict"]) == ("ml", 400.0, "within")
    assert volume["percent"] == pytest.approx(40000 / before["statistics"]["volume_ml"], abs=1e-4)
    assert volume["repeatability"]["high"] == pytest.approx(415.74)
    assert "10.1117/12.878240" in volume["repeatability"]["source"]
    share = both["laa_950"]
    assert (share["unit"], share["change"], share["verdict"]) == ("points", 2.0, "beyond")
    assert (both["perc15"]["change"], both["perc15"]["verdict"]) == (-6.0, "beyond")
    right = found["lungs"]["right"]["mass_g"]
    assert (right["unit"], right["verdict"], right["repeatability"]) == ("g", None, None)
    assert right["percent"] == pytest.approx(10, abs=1e-3)
    assert found["thirds"]["left"]["upper"]["mean_hu"]["change"] == 7
    assert list(found["thirds"]["right"]) == ["lower", "middle", "upper"]


@pytest.mark.parametrize("stretch", [0.93, 1.08, 1.2])
def test_a_deeper_breath_alone_leaves_adjusted_density_as_it_was(
    before: dict, stretch: float
) -> None:
    """Tissue that only spreads: raw figures move, adjusted ones stay, in lungs and thirds too."""
    found = compare(before, lungs(stretch))
    both = found["differences"]["both"]
    assert both["volume_ml"]["percent"] == pytest.approx(100 * (stretch - 1), abs=0.01)
    raw = 150 * (1 / stretch - 1)
    assert both["mean_hu"]["change"] == pytest.approx(raw, abs=1)
    parts = [both, *found["differences"]["lungs"].values()]
    parts += [third for side in found["differences"]["thirds"].values() for third in side.values()]
    for part in parts:
        assert part["mean_hu"]["adjusted"]["change"] == pytest.approx(0, abs=1)
        assert part["perc15"]["adjusted"]["change"] == pytest.approx(0, abs=2)
    assert both["perc15"]["adjusted"]["verdict"] == "within"
    if abs(stretch - 1) > MAX_LAA_STRETCH:
        assert both["laa_950"]["adjusted"] is None
    else:
        assert abs(both["laa_950"]["change"]) > 0.4
        assert both["laa_950"]["adjusted"]["change"] == pytest.approx(0, abs=0.15)
    codes = [warning["code"] for warning in found["warnings"]]
    assert codes == (["inspiration_differs"] if abs(stretch - 1) >= 0.1 else [])


def test_tissue_that_was_lost_shows_through_a_deeper_breath(before: dict) -> None:
    after = lungs(1.1)
    region = after["statistics"]
    region["density"]["perc15"] -= 25
    adjusted = compare(before, after)["differences"]["both"]["perc15"]["adjusted"]
    assert adjusted["change"] == pytest.approx(-25 * 1.1, abs=2)
    assert adjusted["percent"] < -14.7
    assert adjusted["verdict"] == "beyond"


ODD = {
    "kernel_differs": ("acquisition", "kernel", "B60f"),
    "thickness_differs": ("acquisition", "slice_thickness_mm", 1.0),
    "kvp_differs": ("acquisition", "kvp", 100),
    "contrast_differs": ("acquisition", "contrast", True),
    "manufacturer_differs": ("acquisition", "manufacturer", "Another"),
    "model_differs": ("model", "version", "2"),
}


@pytest.mark.parametrize("code", ODD)
def test_each_disagreement_of_the_headers_is_a_warning(before: dict, code: str) -> None:
    """By name, either way round; what a header does not say is none."""
    part, name, value = ODD[code]
    after = copy.deepcopy(before)
    after[part][name] = value
    for one, other in ((before, after), (after, before)):
        (warning,) = compare(one, other)["warnings"]
        assert (warning["code"], warning["message"]) == (code, MESSAGES[code])
    after[part][name] = None
    assert compare(before, after)["warnings"] == []
    if isinstance(before[part][name], str):
        after[part][name] = f" {before[part][name].upper()}"
        assert compare(before, after)["warnings"] == []


def test_steps_count_as_thickness(before: dict) -> None:
    after = copy.deepcopy(before)
    for step, expected in ((4.3, 0), (4.5, 1), (2.0, 1)):
        after["volume"]["spacing_mm"][0] = step
        assert len(compare(before, after)["warnings"]) == expected
    after["volume"]["spacing_mm"] = None
    assert compare(before, after)["warnings"] == []


@pytest.mark.parametrize("flag", ["incomplete_apex", "incomplete_base", "touches_border"])
def test_of_lungs_that_are_cut_off_there_is_neither_percent_nor_verdict(
    before: dict, flag: str
) -> None:
    cut_off = copy.deepcopy(before)
    cut_off["quality"]["flags"] = [{"code": flag, "message": "…"}]
    for one, other in ((before, cut_off), (cut_off, before)):
        found = compare(one, other)
        assert [warning["code"] for warning in found["warnings"]] == ["incomplete_lung"]
        volume = found["differences"]["both"]["volume_ml"]
        assert (volume["change"], volume["percent"], volume["verdict"]) == (0, None, None)
        assert found["differences"]["both"]["perc15"]["adjusted"] is None
        assert found["differences"]["thirds"]["right"]["lower"]["mean_hu"]["adjusted"] is None


def test_what_one_scan_lacks_is_none(before: dict) -> None:
    after = copy.deepcopy(before)
    statistics = after["statistics"]
    statistics["density"], statistics["volume_ml"] = None, None
    statistics["lungs"]["left"], statistics["thirds"]["right"] = None, None
    found = compare(before, after)["differences"]
    assert found["both"]["volume_ml"]["change"] is found["both"]["laa_950"]["change"] is None
    assert found["both"]["mean_hu"]["adjusted"] is found["both"]["perc15"]["adjusted"] is None
    assert found["both"]["mean_hu"]["change"] == 0
    assert found["lungs"]["left"] is found["thirds"]["right"] is found["thirds"]["left"] is None
    after["statistics"]["intensity"]["unit"] = "grey level"
    assert compare(before, after)["differences"]["both"]["mean_hu"]["change"] is None
    after["statistics"]["thirds"] = None
    assert compare(before, after)["differences"]["thirds"] == {"right": None, "left": None}


PLACES = [
    (), ("statistics",), ("statistics", "lungs"), ("statistics", "lungs", "right"),
    ("statistics", "volume_ml"), ("statistics", "intensity"), ("statistics", "intensity", "mean"),
    ("statistics", "density", "laa_950"), ("statistics", "density"), ("statistics", "thirds"),
    ("statistics", "thirds", "left"), ("statistics", "thirds", "left", "upper"),
    ("statistics", "thirds", "left", "upper", "mass_g"), ("quality",), ("quality", "flags"),
    ("volume",), ("volume", "spacing_mm"), ("acquisition",), ("acquisition", "kernel"), ("model",),
]  # fmt: skip
VALUES = [
    None, True, 0, -1, 1e300, math.nan, math.inf, 10**400, "x", [], {}, [[]], {"code": []}, [None],
    [1, 2, 3], [{"code": ["incomplete_apex"]}],
]  # fmt: skip


@given(st.sampled_from(PLACES), st.sampled_from(VALUES), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_other_value_is_compared_or_refused(
    before: dict, place: tuple, value: object, first: bool
) -> None:
    """By a sentence that names the place and not the value; an answer is valid JSON."""
    odd: dict = {"": copy.deepcopy(before)}
    members, last = odd, ""
    for name in place:
        members, last = members[last], name
    members[last] = value
    pair = (odd[""], before) if first else (before, odd[""])
    said = ""
    try:
        json.dumps(compare(*pair), allow_nan=False)
    except InvalidParameter as error:
        said = str(error)
    where = ".".join(("before" if first else "after", *place))
    assert not said or (where in said and said.endswith("received something else"))


def test_an_answer_for_a_slice_is_none_for_a_volume(before: dict) -> None:
    slices = {"image": {}, "statistics": {"pixels": 3, "lungs": {}, "intensity": {}}}
    with pytest.raises(InvalidParameter, match=r"before\.volume"):
        compare(slices, before)
