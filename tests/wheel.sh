#!/usr/bin/env bash
# The wheel, alone in an environment of its own and outside the checkout, does what the README says of it.
set -euo pipefail
checkout=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
pip() { "$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }

cd "$checkout"
.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$place" .
.venv/bin/python -c "from training.synthetic import phantom; open('$place/phantom.dcm', 'wb').write(phantom.dicom_bytes(phantom.make_phantom()))"
"${PYTHON:-python3}" -m venv "$place/venv"
pip --require-hashes -r requirements/service.txt
pip --no-deps "$place"/lungseg-*.whl

cd "$place"
lungseg=venv/bin/lungseg
"$lungseg" --version
"$lungseg" segment phantom.dcm -o out
"$lungseg" segment "$("$lungseg" sample)" --format png -o masks
venv/bin/python - <<'PROGRAM'
import json
from importlib import metadata
from pathlib import Path

import lungseg
from lungseg.packaged import page_folder

assert (page_folder() / "index.html").is_file(), "the page is not in the wheel"
found = lungseg.load().segment("phantom.dcm")
told = json.loads(Path("out/phantom.json").read_text())
assert found.statistics == told["statistics"], "library and command line differ"
assert found.statistics["lungs"]["right"]["pixels"] > 1000, found.statistics
tops = {file.parts[0] for file in metadata.files("lungseg") if ".." not in file.parts}
assert {top for top in tops if not top.endswith(".dist-info")} == {"lungseg"}, tops
inside = {str(file) for file in metadata.files("lungseg")}
assert "lungseg/models/LICENSE" in inside, "the weights come without their licence"
assert Path("masks/chest_mask.png").stat().st_size > 500
PROGRAM
echo "the wheel works outside the checkout"
