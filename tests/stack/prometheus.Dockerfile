# What Kizu's compose file needs of the image prom/prometheus, from Debian's own package.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=nobody --group=nogroup /prometheus
USER nobody
VOLUME ["/prometheus"]
ENTRYPOINT ["prometheus"]
