#!/usr/bin/env bash
# Makes a self-signed certificate for trials. For users, bring one that they can verify.
set -euo pipefail
usage="usage: docker/nginx/certificate.sh [NAME [FOLDER]], by default localhost and docker/nginx/certs"
case ${1:-} in
  -h | --help) echo "$usage"; exit 0 ;;
  -*) echo "$usage; received $1" >&2; exit 2 ;;
esac
if (($# > 2)); then
  echo "$usage; received more" >&2
  exit 2
fi
name=${1:-localhost}
folder=${2:-$(dirname "$0")/certs}
mkdir -p "$folder"
# openssl draws its progress on standard error: it is shown where it says why something failed.
said=$(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 \
  -subj "/CN=$name" -addext "subjectAltName=DNS:$name,DNS:gateway,IP:127.0.0.1" \
  -keyout "$folder/gateway.key" -out "$folder/gateway.crt" 2>&1) || {
  echo "$said" >&2
  echo "certificate: openssl made no certificate for $name in $folder" >&2
  exit 1
}
# The gateway runs as a user of its own, who has to read the key.
chmod 644 "$folder/gateway.key" "$folder/gateway.crt"
echo "$folder/gateway.crt for $name, 90 days"
