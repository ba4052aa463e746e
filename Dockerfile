# The service: hashed requirements, the model bundles, nothing that builds or trains.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
# What the labels say. Only whoever builds knows the commit; the rest is checked below, and `make image` says it all.
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG MODEL=lung-unet/3
ARG MODEL_SHA256=3b3db27738e14ddad5eda0f4613f8b0dfbadfdfa3f88b6ddb7d6ea30ca26c310

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /venv
COPY requirements/build.txt requirements/service.txt requirements/
RUN /venv/bin/python -m pip install --no-cache-dir --no-compile --disable-pip-version-check --require-hashes \
      -r requirements/build.txt -r requirements/service.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY models models
COPY service service
RUN /venv/bin/python -m pip install --no-cache-dir --no-compile --disable-pip-version-check --no-deps --no-build-isolation . \
    && /venv/bin/python -m pip uninstall --quiet --yes setuptools pip
# Byte code is made now, since the container can't write any.
COPY docker/slim.py ./
RUN /venv/bin/python slim.py "$(/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && python -m compileall -q --invalidation-mode unchecked-hash /venv/lib \
    && /venv/bin/python -c "import gdcm, highdicom, lungseg.server"
COPY docker/check-labels.sh ./
ARG VERSION
ARG MODEL
ARG MODEL_SHA256
RUN ./check-labels.sh "$VERSION" "$MODEL" "$MODEL_SHA256"

FROM ${PYTHON_IMAGE}
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    LUNGSEG_HOST=0.0.0.0 \
    LUNGSEG_PORT=8000 \
    LUNGSEG_MODELS_DIR=/app/models
WORKDIR /app
COPY --from=build /venv /venv
COPY --from=build /src/models models
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['LUNGSEG_PORT'] + '/readyz', timeout=3)"]
CMD ["python", "-m", "lungseg", "serve"]

ARG VERSION
ARG REVISION
ARG MODEL
ARG MODEL_SHA256
LABEL org.opencontainers.image.title="lungseg" \
      org.opencontainers.image.description="Lung segmentation in chest CT slices over HTTP; research use only" \
      org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-lungseg-models AND CC-BY-3.0 AND BSD-2-Clause AND MIT AND ISC" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      lungseg.model="${MODEL}" \
      lungseg.model.sha256="${MODEL_SHA256}"
