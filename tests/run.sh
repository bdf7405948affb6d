#!/usr/bin/env bash
# Sets up and passes every test, on a new machine too.
#   bash tests/run.sh             everything
#   bash tests/run.sh -k batcher  the checks, then pytest with these arguments
set -euo pipefail
cd "$(dirname "$0")/.."

# A browser for the page, strace to see what is synced to disk, libfaketime for clocks that jump, and
# what stands beside a deployed service: its proxy, Prometheus, its allocator, a broker.
if ! { [ -x /usr/bin/chromium ] && command -v strace >/dev/null &&
    command -v faketime >/dev/null && command -v caddy >/dev/null &&
    command -v prometheus >/dev/null && [ -x /usr/sbin/mosquitto ]; } &&
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq chromium strace faketime caddy prometheus libjemalloc2 mosquitto \
        >/dev/null; } ||
        echo "Not all of these can be had here: tests that need them are skipped."
fi
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
if ! cmp -s pyproject.toml .venv/tests-installed.toml; then
    .venv/bin/pip install --quiet --disable-pip-version-check --no-compile \
        --editable '.[cpu,train,timm,connect,s3,ray,dev]'
    cp pyproject.toml .venv/tests-installed.toml
fi
export PATH="$PWD/.venv/bin:$PATH"
# Threads that spin would fight each other on a small machine.
export OMP_WAIT_POLICY=PASSIVE
# Many tests start programs of their own: what those import is compiled by the first alone.
export PYTHONDONTWRITEBYTECODE=

ruff check .
ruff format --check .
mypy
lint-imports
# A file stays in one process, where its fixtures are made once; the longest come first.
pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@"
