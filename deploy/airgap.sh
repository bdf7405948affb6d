#!/usr/bin/env bash
# Carries Kizu to a PC without a network, as one file.
#   bash deploy/airgap.sh pack FILE [BUNDLES]   images, this folder, and a folder of bundles if named
#   bash deploy/airgap.sh load                  on the PC, where the file was unpacked
# COMPOSE_PROFILES says which images, cpu (default) or gpu, or with ,connect behind it. They are built and pulled before:
#   docker compose -f deploy/compose.yaml --profile cpu build
#   docker compose -f deploy/compose.yaml --profile cpu pull --ignore-buildable
# KIZU_ENGINE=podman takes Podman and podman-compose.
set -euo pipefail
cd "$(dirname "$0")"

engine=${KIZU_ENGINE:-docker}
profiles=${COMPOSE_PROFILES:-cpu}
compose=(docker compose)
save=(docker save)
if [ "$engine" = podman ]; then
    compose=(podman-compose)
    save=(podman save --multi-image-archive)  # or it would be the first one under several names
fi

chosen=()
for profile in ${profiles//,/ }; do chosen+=(--profile "$profile"); done

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

pack() {
    local file bundles=${2:-} work
    file=$(realpath "$1")
    [ -z "$bundles" ] || bundles=$(realpath --canonicalize-existing "$bundles")
    work=$(mktemp --directory --tmpdir="$(dirname "$file")")
    # shellcheck disable=SC2064  # the folder of now
    trap "rm -rf '$work'" EXIT
    mkdir "$work/kizu"
    # Neither passwords and keys nor what was set for another PC.
    tar --create --exclude=./secrets --exclude=./connect --exclude=./.env . | tar --extract --directory "$work/kizu"
    local images
    images=$("${compose[@]}" --file compose.yaml "${chosen[@]}" config |
        sed -n 's/^ *image: *//p' | tr -d "\"'" | sort --unique)
    echo "packing $(echo "$images" | wc -w) images"
    # shellcheck disable=SC2086  # several words
    "${save[@]}" $images >"$work/kizu/images.tar"
    [ -z "$bundles" ] || tar --create --directory "$bundles" . >"$work/kizu/bundles.tar"
    (cd "$work/kizu" && find . -type f ! -name SHA256SUMS -print0 | sort -z |
        xargs -0 sha256sum >../sums && mv ../sums SHA256SUMS)
    tar --create --gzip --file "$file.part" --directory "$work" kizu
    mv "$file.part" "$file"
    echo "$file: $(du --human-readable "$file" | cut -f1). On the PC: tar -xzf $(basename "$file") && bash kizu/airgap.sh load"
}

load() {
    [ -f images.tar ] || { echo "There is no images.tar here: unpack the file first." >&2; exit 1; }
    sha256sum --check --quiet SHA256SUMS || {
        echo "The file was damaged on its way: carry it again." >&2
        exit 1
    }
    "$engine" load --input images.tar
    if [ -f bundles.tar ]; then
        # A volume of this name is what compose takes for the store, unless .env names a folder.
        "$engine" volume inspect kizu_store >/dev/null 2>&1 || "$engine" volume create kizu_store >/dev/null
        "$engine" run --rm --interactive --network none --volume kizu_store:/store \
            "kizu:${KIZU_TAG:-local}-${profiles%%,*}" tar --extract --skip-old-files --directory /store <bundles.tar
        echo "bundles are in the volume kizu_store"
    fi
    bash secrets.sh
    [ -f .env ] || cp .env.example .env
    sed -i "s/^COMPOSE_PROFILES=.*/COMPOSE_PROFILES=$profiles/" .env
    echo "Set KIZU_NAME in $PWD/.env, then: ${compose[*]} -f $PWD/compose.yaml up --detach --no-build --pull never"
}

case ${1:-} in
    pack) [ $# -ge 2 ] || usage; pack "${@:2}" ;;
    load) load ;;
    *) usage ;;
esac
