#!/usr/bin/env bash
# What Kizu's images need of python:3.11-slim-bookworm, from Debian's own packages:
#   bash tests/stack/python.sh TAG
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debootstrap --variant=minbase \
    --include=ca-certificates,python-is-python3,python3-pip,python3-venv \
    bookworm "$work/system" http://deb.debian.org/debian >"$work/log" || { cat "$work/log"; exit 1; }
rm -rf "$work"/system/var/cache/apt/* "$work"/system/var/lib/apt/lists/* \
    "$work"/system/usr/share/{doc,info,locale,man}
# As in Docker's slim images of Debian: no documentation, and apt keeps no packages, and no index of them.
printf '%s\n' 'Dir::Cache::pkgcache "";' 'Dir::Cache::srcpkgcache "";' \
    'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };' \
    > "$work/system/etc/apt/apt.conf.d/docker-clean"
tar --create --directory "$work/system" . | podman import --change 'CMD ["python"]' - "$1"
