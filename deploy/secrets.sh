#!/usr/bin/env bash
# Passwords that nobody needs to know, made once: bash deploy/secrets.sh
# Compose mounts the files as they are and the services run as users, so anybody may read a file;
# but only you get into their folder.
set -euo pipefail
cd "$(dirname "$0")"

mkdir -p -m 700 secrets
for name in postgres_password grafana_password; do
    [ -s "secrets/$name" ] && continue
    openssl rand -hex 32 > "secrets/$name"
    chmod 444 "secrets/$name"
    echo "made deploy/secrets/$name"
done
