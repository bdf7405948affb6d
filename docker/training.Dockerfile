# The trainer: fits, retrains, pulls backbones. From the repository's root:
#   docker build -f docker/training.Dockerfile -t kizu-training:local .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY service service
COPY training training
# What `kizu-train --version` says; there is no git here to ask.
ARG KIZU_COMMIT=""
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${BASE} AS packages
# An index of other builds of torch, such as the CPU-only ones; empty for pip's own index.
ARG TORCH_INDEX=""
# The pins are those of pyproject.toml, in a layer of their own: gigabytes that change rarely.
RUN python -m venv /opt/kizu \
    && /opt/kizu/bin/pip install --no-cache-dir \
        ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} \
        torch==2.13.0 torchvision==0.28.0
COPY --from=build /wheels /wheels
ARG EXTRAS=""
RUN /opt/kizu/bin/pip install --no-cache-dir \
        "$(echo /wheels/kizu-*.whl)[cpu,train,timm${EXTRAS:+,${EXTRAS}}]"
# A timm model to pull now, such as efficientnet_b4, so that the PC needs no network for it.
ARG BACKBONE=""
RUN test -z "${BACKBONE}" || /opt/kizu/bin/kizu-train backbone pull "${BACKBONE}" \
        --backbones "$(/opt/kizu/bin/python -c 'from models.backbone import EMBEDDED; print(EMBEDDED)')"
# All Python packages that go into the image, as CycloneDX.
RUN python -m venv /opt/sbom \
    && /opt/sbom/bin/pip install --no-cache-dir "cyclonedx-bom>=7.0" \
    && /opt/sbom/bin/cyclonedx-py environment --output-reproducible \
        --output-file /opt/kizu/sbom.cdx.json /opt/kizu

FROM ${BASE}
# The service's ids, since both write to the same store and data; a home, since matplotlib and the hub's
# client keep caches there.
RUN groupadd --gid 10001 kizu \
    && useradd --uid 10001 --gid kizu --no-log-init --create-home \
        --shell /usr/sbin/nologin kizu \
    && install --directory --owner=kizu --group=kizu /cache /data /store
COPY --from=packages /opt/kizu /opt/kizu
ENV PATH="/opt/kizu/bin:${PATH}" \
    PYTHONUNBUFFERED=1 \
    KIZU_STORE=/store \
    KIZU_BACKBONES=/cache/backbones \
    KIZU_CACHE=/cache/features
WORKDIR /cache
VOLUME ["/cache", "/data", "/store"]
USER 10001:10001
ENTRYPOINT ["kizu-train"]
CMD ["--help"]
