#!/bin/sh
# A self-signed certificate for trials: certificate.sh [NAME [FOLDER]]. For users, bring one that they can verify.
set -eu
name=${1:-localhost}
folder=${2:-$(dirname "$0")/certs}
mkdir -p "$folder"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 \
  -subj "/CN=$name" -addext "subjectAltName=DNS:$name,DNS:gateway,IP:127.0.0.1" \
  -keyout "$folder/gateway.key" -out "$folder/gateway.crt" 2>/dev/null
# The gateway runs as a user of its own, who has to read the key.
chmod 644 "$folder/gateway.key" "$folder/gateway.crt"
echo "$folder/gateway.crt for $name, 90 days"
