#!/usr/bin/env bash
# Makes the database once, as the image postgres does; then becomes the server.
set -euo pipefail
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    # shellcheck disable=SC2086  # options are several words
    initdb --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth=scram-sha-256 \
        --auth-local=trust ${POSTGRES_INITDB_ARGS:-}
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    # By the socket alone: nobody is to take this server for the one that stays.
    pg_ctl start --wait --options="-c listen_addresses=''"
    [ "$POSTGRES_DB" = postgres ] || createdb --username="$POSTGRES_USER" --no-password \
        --maintenance-db=postgres "$POSTGRES_DB"
    pg_ctl stop --wait --mode=fast
fi
[ "$1" != postgres ] || set -- "$@" -c "listen_addresses=*"
exec "$@"
