# Two images. `api` is for the API, the migrations and the command line, and has no torch; it is built if no --target is
# named. `worker` trains. docker-compose.yml says which command runs in which.
FROM python:3.12.12-slim-bookworm AS requirements

LABEL org.opencontainers.image.title="accrete" \
      org.opencontainers.image.description="An image classifier that keeps learning new classes" \
      org.opencontainers.image.licenses="Apache-2.0"

# ONNX Runtime sends reports about its use unless it is told not to before it is imported.
ENV ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    ACCRETE_HOME=/data

# A fixed number, so that a volume keeps its owner and an orchestrator can demand a user that is not root.
RUN groupadd --gid 10001 accrete \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin accrete \
    && install --directory --owner accrete --group accrete --mode 0700 /data

WORKDIR /opt/accrete

# The requirements change rarely and are large: layers of their own. Both images share the API's.
COPY requirements-api.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements-api.lock


FROM requirements AS wheel

COPY pyproject.toml README.md LICENSE ./
COPY losses losses
COPY storage storage
COPY trainer trainer
COPY api api
COPY accrete accrete
RUN pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels .


FROM requirements AS worker

# torch is the build that the index offers.
COPY requirements-worker.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements-worker.lock

COPY --from=wheel /opt/accrete/wheels wheels
RUN pip install --no-cache-dir --no-deps wheels/*.whl

ENV OMP_WAIT_POLICY=PASSIVE

USER 10001:10001
WORKDIR /data
VOLUME ["/data"]

CMD ["celery", "--app=trainer.workers.app", "worker", "--pool=threads", "--concurrency=2", "--without-gossip", \
     "--without-mingle", "--loglevel=info", "--hostname=worker@%h"]


FROM requirements AS api

COPY --from=wheel /opt/accrete/wheels wheels
RUN pip install --no-cache-dir --no-deps wheels/*.whl

ENV ACCRETE_HOST=0.0.0.0 \
    ACCRETE_PORT=8000

USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 8000

# The image has no curl; the port is read at run time because it is a setting.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['ACCRETE_PORT'] + '/livez', timeout=4)"]

CMD ["python", "-m", "api"]
