# syntax=docker/dockerfile:1
# The product's image:            docker build --target product --tag meterhouse .
# The same with Java and PySpark: docker build --target spark --tag meterhouse-spark .
# Python and every package come locked; no secret is needed to build, and none is kept.

FROM python:3.11.14-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PATH=/opt/venv/bin:$PATH

FROM base AS packages
COPY requirements/runtime.txt /build/
# Wheels alone: nothing is compiled, so neither stage needs a compiler.
RUN python -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --require-hashes --only-binary :all: -r /build/runtime.txt \
    && /opt/venv/bin/python -m compileall -q /opt/venv/lib

FROM base AS application
# The numbers are fixed, so that volumes keep their owner from one build to the next.
RUN groupadd --gid 10001 meterhouse \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin meterhouse \
    && install --directory --owner 10001 --group 10001 /data/inbox /data/objects /data/scratch /data/uploads
WORKDIR /app
COPY manage.py ./
COPY config config
COPY accounts accounts
COPY credits credits
COPY ingestion ingestion
COPY search search
COPY templates templates
RUN python -m compileall -q /app
# Settings come from the environment alone. Static files are served from where they lie: there is nothing to collect.
ENV IGNORE_ENV_FILES=1 \
    HOME=/tmp \
    GRANIAN_HOST=0.0.0.0 \
    GRANIAN_PORT=8000

FROM packages AS spark-packages
COPY requirements/spark.txt /build/
RUN /opt/venv/bin/python -m pip install --require-hashes -r /build/spark.txt

# Driver, master and workers of Spark: one image, as all of them run the same Python with the same rules.
FROM application AS spark
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-17-jre-headless procps \
    && rm -rf /var/lib/apt/lists/*
COPY --from=spark-packages /opt/venv /opt/venv
USER 10001:10001
HEALTHCHECK NONE
CMD ["spark-class", "org.apache.spark.deploy.master.Master"]

# An object store whose data folder belongs to a user that is not root.
FROM minio/minio:RELEASE.2025-09-07T16-13-09Z AS objects
COPY --from=application --chown=10001:10001 /data/objects /data
USER 10001:10001
CMD ["server", "/data"]

# The last one is what a build without --target makes.
FROM application AS product
COPY --from=packages /opt/venv /opt/venv
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-m", "config.alive", "http://127.0.0.1:8000/api/v1/health"]
CMD ["python", "-m", "granian", "--interface", "wsgi", "--workers", "1", "--blocking-threads", "8", "--respawn-failed-workers", "config.wsgi:application"]
