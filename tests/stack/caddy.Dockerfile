# What Kizu's proxy needs of the image caddy, from Debian's own packages.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
RUN apt-get update && apt-get install --yes --no-install-recommends caddy wget \
    && rm -rf /var/lib/apt/lists/*
