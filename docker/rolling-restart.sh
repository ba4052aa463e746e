#!/usr/bin/env bash
# Restarts replicas one after another, each when the one before is ready again; its arguments are containers.
set -euo pipefail
usage="usage: docker/rolling-restart.sh CONTAINER…, for example of \$(docker compose ps --quiet service)"
case ${1:-} in
  -h | --help) echo "$usage"; exit 0 ;;
  "") echo "$usage; received no container" >&2; exit 2 ;;
esac
# All are looked at before the first is touched: a wrong name must not stop a half-done round.
for container in "$@"; do
  docker inspect --format '{{.State.Health.Status}}' "$container" >/dev/null || {
    echo "rolling-restart: $container is no container with a health check: nothing was restarted" >&2
    exit 2
  }
done
for container in "$@"; do
  docker restart --time 30 "$container" >/dev/null
  state=unknown
  for _ in {1..120}; do
    state=$(docker inspect --format '{{.State.Health.Status}}' "$container")
    [[ $state == healthy ]] && break
    sleep 0.5
  done
  [[ $state == healthy ]] || {
    echo "rolling-restart: $container is $state after a minute: stopped here" >&2
    exit 1
  }
done
