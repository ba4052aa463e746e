#!/usr/bin/env bash
# Writes behind the tag of each base image the digest that its registry has for it now, in the files that name it.
set -euo pipefail
if (($#)); then
  echo "usage: docker/pin-images.sh (no arguments; the registries must be within reach)" >&2
  exit 2
fi
cd "$(dirname "$0")/.."
files=(Dockerfile docker/Dockerfile.training docker-compose.yml docker/compose.monitoring.yml docker/compose.training.yml docker/orthanc/compose.yml)
images=$(grep -ohE '_IMAGE(=|:-)[^@}[:space:]]+' "${files[@]}" | sed -E 's/^_IMAGE(=|:-)//' | sort -u)

# All are asked for before any is written: a round is whole or not begun.
edits=()
for image in $images; do
  docker pull --quiet "$image" >/dev/null
  known=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image")
  digest=$(sed -n "s|^${image%:*}@\(sha256:[0-9a-f]\{64\}\)\$|\1|p" <<<"$known" | head -n 1)
  if [[ -z $digest ]]; then
    echo "$image has no digest of a registry: nothing is written" >&2
    exit 1
  fi
  echo "$image@$digest"
  edits+=(-e "s|(_IMAGE(=\|:-)${image//./\\.})(@sha256:[0-9a-f]{64})?|\1@$digest|")
done
sed -i -E "${edits[@]}" "${files[@]}"
