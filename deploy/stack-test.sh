#!/usr/bin/env bash
# Builds the images and runs the stack on a machine without Docker, as root on a Debian:
#   bash deploy/stack-test.sh            with buildah, podman and podman-compose, in 12 minutes
# The images stand on Debian's packages instead of Docker Hub's images; Grafana is left out.
set -euo pipefail
cd "$(dirname "$0")/.."

# Gigabytes; named, they stay and the next run begins with them.
work=${KIZU_STACK_DIR:-$(mktemp -d)}
mkdir -p "$work"
finish() {
    if [ -z "${KIZU_STACK_DIR:-}" ]; then
        podman system reset --force >/dev/null 2>&1 || true
        rm -rf "$work"
    fi
}
trap finish EXIT
say() { printf '\n%(%T)T  %s\n' -1 "$*"; }

tools=(aardvark-dns buildah ca-certificates debootstrap iptables netavark podman runc)
if ! dpkg --status "${tools[@]}" >/dev/null 2>&1; then
    say "Installing ${tools[*]}"
    apt-get update -qq
    apt-get install -qq --yes --no-install-recommends "${tools[@]}" >/dev/null
fi
[ -x "$work/venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --editable '.[cpu,connect]' \
    'podman-compose>=1.6' 'standardwebhooks>=1.0'

# An engine of its own, which does without systemd and leaves the machine's alone.
cat >"$work/storage.conf" <<END
[storage]
driver = "overlay"
graphroot = "$work/storage"
runroot = "$work/run"
END
cat >"$work/containers.conf" <<END
[containers]
default_ulimits = []
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
network_config_dir = "$work/networks"
END
export CONTAINERS_STORAGE_CONF=$work/storage.conf CONTAINERS_CONF=$work/containers.conf

# Builds trust whom this machine trusts, and find the wheels that it finds.
authorities=/etc/ssl/certs/ca-certificates.crt
wheels=${PIP_FIND_LINKS:-}
printf '[global]\ncert = %s\n' "$authorities" >"$work/pip.conf"
options=(--volume "$authorities:$authorities:ro" --volume "$work/pip.conf:/etc/pip.conf:ro")
if [ -d "$wheels" ]; then
    echo "find-links = $wheels" >>"$work/pip.conf"
    options+=(--volume "$wheels:$wheels:ro")
fi

commit=$(git describe --always --dirty=+ --abbrev=12 --exclude='*' 2>/dev/null || true)
build() { # TAG FILE [OPTION…]
    local tag=$1 file=$2
    shift 2
    say "Building $tag"
    [ ! -f "$file.dockerignore" ] || set -- "$@" --ignorefile "$file.dockerignore"
    buildah bud --isolation chroot --pull=never --format docker --layers \
        "${options[@]}" "$@" --file "$file" --tag "$tag" . >"$work/build.log" 2>&1 || {
        tail -n 40 "$work/build.log"
        exit 1
    }
}

hub=docker.io
python=$hub/library/python:3.11-slim-bookworm
if ! podman image exists "$python"; then
    say "Building $python"
    bash tests/stack/python.sh "$python" >/dev/null 2>&1
fi
build "$hub/library/postgres:17-bookworm" tests/stack/postgres.Dockerfile
build "$hub/prom/prometheus:v3.13.2" tests/stack/prometheus.Dockerfile
build "$hub/library/caddy:2.10-alpine" tests/stack/caddy.Dockerfile
build localhost/kizu-proxy:local docker/proxy.Dockerfile
build localhost/kizu:local-cpu docker/service.Dockerfile --build-arg KIZU_COMMIT="$commit"
build localhost/kizu-training:local-cpu docker/training.Dockerfile --build-arg KIZU_COMMIT="$commit"
podman images --filter reference='localhost/kizu*' --format '{{.Repository}}:{{.Tag}}  {{.Size}}'

podman run --rm --network none localhost/kizu:local-cpu kizu --version
podman run --rm --network none localhost/kizu:local-cpu cat /opt/kizu/sbom.cdx.json |
    "$work/venv/bin/python" -c 'import json, sys; print(len(json.load(sys.stdin)["components"]), "packages in its CycloneDX")'

say "Bringing the stack up"
"$work/venv/bin/python" -m tests.stack
