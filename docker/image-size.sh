#!/usr/bin/env bash
# Prints what an image adds to its base.
set -euo pipefail
if (($# != 2)); then
  echo "usage: docker/image-size.sh BASE IMAGE" >&2
  exit 2
fi
size() { docker image inspect --format '{{.Size}}' "$1"; }
base=$(size "$1")
image=$(size "$2")
echo "$2: $((image / 1000000)) MB, $(((image - base) / 1000000)) MB above $1"
docker run --rm --entrypoint python "$2" -c "
import pathlib
folders = sorted(
    ((sum(f.lstat().st_size for f in d.rglob('*') if f.is_file()), d.name)
     for d in pathlib.Path('/venv').glob('lib/python*/site-packages/*') if d.is_dir()), reverse=True)
for size, name in folders[:6]:
    print(f'  {size / 1e6:5.0f} MB  {name}')
"
