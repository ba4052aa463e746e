"""Takes out of site-packages what a running service never touches: slim.py SITE_PACKAGES."""

import hashlib
import shutil
import sys
from pathlib import Path

# What, and why nothing misses it. The container tests decode, segment and encode after this.
UNUSED = (
    "*/**/tests",  # the packages' own tests
    "onnxruntime/capi/libonnxruntime.so*",  # the C library; Python's module has it linked in
    "onnxruntime/transformers",  # tools that rewrite models
    "onnxruntime/quantization",
    "onnxruntime/tools",
    "onnxruntime/datasets",
    "PIL/_avif*.so",  # a picture format that is not accepted
    "pillow.libs/libavif*",
    "numpy/_core/include",  # headers for compilers
    "lungseg/models",  # the image has all models of the checkout in a folder of their own
    "fastapi_offline/static/redoc*",  # another documentation page, not served
)


def main(packages: Path) -> None:
    before = size(packages)
    for pattern in UNUSED:
        for path in list(packages.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    share_equal_libraries(packages)
    print(f"{packages}: {before / 1e6:.0f} MB -> {size(packages) / 1e6:.0f} MB")


def share_equal_libraries(packages: Path) -> None:
    """Wheels can't hold links, so a library comes once for each of its names: link them again."""
    first: dict[tuple[Path, str], Path] = {}
    for path in sorted(packages.rglob("*.so*")):
        if path.is_symlink() or not path.is_file():
            continue
        key = (path.parent, hashlib.sha256(path.read_bytes()).hexdigest())
        if key in first:
            path.unlink()
            path.symlink_to(first[key].name)
        else:
            first[key] = path


def size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


main(Path(sys.argv[1]))
