# The inspection service. From the repository's root:
#   docker build -f docker/service.Dockerfile --build-arg RUNTIME=cpu -t kizu:local-cpu .
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
# cpu or gpu, never both: the two wheels of ONNX Runtime write the same module.
ARG RUNTIME=cpu
# With ray, as in connect,ray, it is for a cluster.
ARG EXTRAS=connect
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY service service
COPY training training
# What `kizu --version` says; there is no git here to ask.
ARG KIZU_COMMIT=""
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .
# Without pip: nothing is installed in a plant. libonnxruntime.so, 35 MB, is for programs in C: the
# Python module and its providers hold what they need of it, and none of them is linked to it. pip
# only warns of an extra that does not exist; the import makes a mistyped RUNTIME fail here.
RUN python -m venv --without-pip /opt/kizu \
    && pip --python /opt/kizu/bin/python install --no-cache-dir "$(echo /wheels/kizu-*.whl)[${RUNTIME},${EXTRAS}]" \
    && find /opt/kizu -depth -type d -regex ".*/tests?" -exec rm -r {} + \
    && find /opt/kizu -name "libonnxruntime.so.*" -delete \
    && /opt/kizu/bin/python -c "import onnxruntime"
# All Python packages that go into the image, as CycloneDX.
RUN python -m venv /opt/sbom \
    && /opt/sbom/bin/pip install --no-cache-dir "cyclonedx-bom>=7.0" \
    && /opt/sbom/bin/cyclonedx-py environment --output-reproducible \
        --output-file /opt/kizu/sbom.cdx.json /opt/kizu

FROM ${BASE}
# With glibc's own allocator the service grew by 0.3 kB with every request (the gate of a soak).
# No version: Debian keeps only its newest.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libjemalloc2 \
    && rm -rf /var/lib/apt/lists/*
# The ids are fixed because volumes outlive images. A new named volume takes over the owner of
# the directory that it covers, so these directories exist before they are volumes.
RUN groupadd --gid 10001 kizu \
    && useradd --uid 10001 --gid kizu --no-log-init --no-create-home \
        --shell /usr/sbin/nologin kizu \
    && install --directory --owner=kizu --group=kizu /data /store /drop
COPY --from=build /opt/kizu /opt/kizu
ENV PATH="/opt/kizu/bin:${PATH}" \
    LD_PRELOAD=libjemalloc.so.2 \
    PYTHONUNBUFFERED=1 \
    KIZU_HOST=0.0.0.0 \
    KIZU_STORE=/store \
    KIZU_DATA=/data
WORKDIR /data
VOLUME ["/data", "/store"]
# By number: Kubernetes cannot tell that a user given by name is not root.
USER 10001:10001
EXPOSE 8000
# Without proxies: Docker hands a plant's HTTP_PROXY to containers, and urllib would ask it.
# The start period is the time to load and warm up every bundle.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ.get('KIZU_PORT', '8000') + '/health/ready', timeout=4)"]
CMD ["kizu", "serve"]
