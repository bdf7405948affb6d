#!/usr/bin/env bash
# From a fresh checkout to a running service with a demo product, on this machine alone.
#   bash deploy/local.sh          install, fit once, start, inspect a good and a defective part
#   bash deploy/local.sh stop     stop the service
set -euo pipefail
cd "$(dirname "$0")/.."

work=.kizu
port=${KIZU_PORT:-8000}
url=http://127.0.0.1:$port
pid_file=$work/service.pid
export KIZU_STORE=$work/store KIZU_DATA=$work/data KIZU_CACHE=$work/features
export KIZU_HOST=127.0.0.1 KIZU_PORT=$port

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# Its number alone would not do: after a restart of the machine it may be somebody else's.
running() {
    [ -f $pid_file ] && grep -qz "kizu$" "/proc/$(cat $pid_file)/cmdline" 2>/dev/null
}

if [ "${1:-}" = stop ]; then
    if running; then
        kill "$(cat $pid_file)"
        while running; do sleep 0.1; done
        echo "stopped"
    else
        echo "not running"
    fi
    rm -f $pid_file
    exit 0
fi

mkdir -p $work
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Kizu needs Python 3.11 or newer; name one with PYTHON=…" >&2
    exit 2
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
# Install again only when what is to be installed has changed.
if ! cmp -s pyproject.toml .venv/local-installed.toml; then
    say "Installing into .venv"
    .venv/bin/pip install --quiet --disable-pip-version-check --editable '.[cpu,train]'
    cp pyproject.toml .venv/local-installed.toml
fi

if [ ! -d $work/demo ]; then
    say "Drawing a demo product: a printed metal cap"
    .venv/bin/kizu-train demo-data $work/demo >/dev/null
fi
if [ ! -e $work/store/cap/1/manifest.json ]; then
    say "Fitting the recipe 'cap' on good parts"
    .venv/bin/kizu-train fit $work/demo --recipe cap >/dev/null
fi

if ! running; then
    say "Starting the service"
    nohup .venv/bin/kizu serve >>$work/service.log 2>&1 &
    echo $! >$pid_file
fi
.venv/bin/python deploy/first_look.py "$url" $work/demo "$(cat $pid_file)" $work/service.log
echo "The service runs in the background: log $work/service.log, stop with: bash deploy/local.sh stop"
