# One image for the API, the worker and the migrations; compose says which command runs.
FROM python:3.12.12-slim-bookworm

LABEL org.opencontainers.image.title="accrete" \
      org.opencontainers.image.description="An image classifier that keeps learning new classes" \
      org.opencontainers.image.licenses="Apache-2.0"

ENV OMP_WAIT_POLICY=PASSIVE \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    ACCRETE_HOME=/data \
    ACCRETE_HOST=0.0.0.0 \
    ACCRETE_PORT=8000

# A fixed number, so that a volume keeps its owner and an orchestrator can demand a user that is not root.
RUN groupadd --gid 10001 accrete \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin accrete \
    && install --directory --owner accrete --group accrete --mode 0700 /data

# What is served much is compiled while it is served; without a compiler it would be served as it is.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++=4:12.2.0-3 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/accrete

# The requirements change rarely and are large: a layer of their own. torch is the build that the index offers.
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY losses losses
COPY storage storage
COPY trainer trainer
COPY api api
COPY accrete accrete
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8000

# The image has no curl; the port is read at run time because it is a setting.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['ACCRETE_PORT'] + '/livez', timeout=4)"]

CMD ["python", "-m", "api"]
