"""Gateway and composition agree with the service."""

import re
from pathlib import Path

import yaml

from lungseg.settings import OTHERS, Settings

ROOT = Path(__file__).parents[2]
NGINX = ROOT / "docker" / "nginx"
MIB = 1024 * 1024


def numbers(text: str, directive: str) -> list[int]:
    return [int(found) for found in re.findall(rf"^\s*{directive} (\d+)[ms]?;", text, re.M)]


def test_the_gateways_limits_are_the_services() -> None:
    """Body limits are equal; the gateway waits longer than the service's deadline."""
    defaults = Settings(_env_file=None)
    routes = (NGINX / "routes.conf").read_text()
    assert numbers(routes, "client_max_body_size") == [
        defaults.max_body_bytes // MIB,
        defaults.max_batch_bytes // MIB,
        defaults.max_volume_bytes // MIB,
    ]
    waits = numbers(routes, "proxy_read_timeout")
    assert len(waits) == 2
    assert defaults.deadline_s < waits[0] < defaults.volume_deadline_s < waits[1]


def test_the_gateways_codes_are_known_or_its_own() -> None:
    """Problem codes are API codes, besides the one that only a gateway can have."""
    text = (NGINX / "problems.conf").read_text()
    codes = set(re.findall(r"set \$problem_code (\w+);", text))
    assert codes - {"rate_limited"} <= {
        "malformed_request",
        "not_found",
        "body_too_large",
        "headers_too_large",
        "internal_error",
        "model_not_ready",
        "deadline_exceeded",
    }
    pages = set(re.findall(r"@(\w+);", (NGINX / "error-pages.conf").read_text()))
    assert pages == set(re.findall(r"location @(\w+)", text))


def test_files_that_set_something_name_real_settings() -> None:
    """A misspelt LUNGSEG_ variable changes nothing, and only a log says so."""
    known = {f"LUNGSEG_{name.upper()}" for name in Settings.model_fields}
    known |= {*OTHERS, "LUNGSEG_FUZZ_INPUTS"}  # the last is the tests' own
    files = [ROOT / name for name in ("docker-compose.yml", "Dockerfile", "Makefile")]
    files += [path for path in (ROOT / "docker").rglob("*") if path.is_file()]
    used = {
        (str(path.relative_to(ROOT)), name)
        for path in files
        for name in re.findall(r"LUNGSEG_[A-Z_]*[A-Z]", path.read_text("utf-8", "replace"))
    }
    assert len(used) >= 20
    assert not [found for found in sorted(used) if found[1] not in known]


def test_the_composition_stops_replicas_in_time() -> None:
    """Docker kills no replica that still drains."""
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["service"]
    environment = service["environment"]
    grace = float(service["stop_grace_period"].removesuffix("s"))
    assert grace > float(environment["LUNGSEG_LINGER_S"]) + float(environment["LUNGSEG_DRAIN_S"])
