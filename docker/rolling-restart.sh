#!/bin/sh
# Restarts replicas one after another, each when the one before is ready again:
#   docker/rolling-restart.sh $(docker compose ps --quiet service)
set -eu
for container in "$@"; do
  docker restart --time 30 "$container" >/dev/null
  for _ in $(seq 120); do
    state=$(docker inspect --format '{{.State.Health.Status}}' "$container")
    [ "$state" = healthy ] && break
    sleep 0.5
  done
  [ "$state" = healthy ] || { echo "$container is $state after a minute: stopped here" >&2; exit 1; }
done
