# What Kizu's compose file needs of the image postgres, from Debian's own package.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
RUN groupadd --gid 999 postgres && useradd --uid 999 --gid postgres --no-log-init postgres \
    && mkdir -p /etc/postgresql-common \
    && echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf \
    && apt-get update && apt-get install --yes --no-install-recommends postgresql-15 \
    && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/* /var/run/postgresql \
    && install --directory --owner=postgres --group=postgres --mode=3777 \
        /var/lib/postgresql/data /var/run/postgresql
ENV LANG=C.UTF-8 PATH="/usr/lib/postgresql/15/bin:${PATH}" PGDATA=/var/lib/postgresql/data
COPY tests/stack/postgres-entrypoint.sh /usr/local/bin/entrypoint.sh
VOLUME ["/var/lib/postgresql/data"]
ENTRYPOINT ["bash", "/usr/local/bin/entrypoint.sh"]
STOPSIGNAL SIGINT
CMD ["postgres"]
