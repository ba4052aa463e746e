#!/usr/bin/env bash
# Ends a build whose labels would lie: run where the project is, with what they are to say.
set -euo pipefail
if (($# != 3)); then
  echo "usage: docker/check-labels.sh VERSION MODEL SHA256" >&2
  exit 2
fi
expect() {
  if [[ $2 != "$3" ]]; then
    echo "the image's label would lie about the $1: expected $2, received ${3:-nothing}" >&2
    exit 1
  fi
}
expect version "$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" "$1"
found=$(sha256sum "models/$2/model.onnx" | cut -d ' ' -f 1)
expect "SHA-256 of ${2:-no model}" "$found" "$3"
