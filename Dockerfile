# The server and, as the target `agent`, the agent. What is here was linted and run step by step in a plain
# folder (tests/deploy); no image was built from it where it was written, for want of an engine.
#
#   docker build --tag fleetwright .
#   docker build --tag fleetwright-agent --target agent .
#
# docs/operations.md says how to run them. The base is pinned by its tag, which moves with Debian's and
# Python's corrections. Whoever needs the same image again builds with its digest:
#   --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
WORKDIR /src
# First what changes least: the libraries, each with its digest, and nothing that would be compiled here.
COPY requirements/runtime.txt requirements/
RUN python -m venv /opt/fleetwright \
 && /opt/fleetwright/bin/pip install --require-hashes --only-binary :all: --requirement requirements/runtime.txt
COPY . .
# 1980: the earliest time that a wheel can hold. The same sources give the same wheels.
ARG SOURCE_DATE_EPOCH=315532800
# The environment that is copied below has neither pip nor setuptools.
RUN PYTHON=/opt/fleetwright/bin/python scripts/wheels /wheels \
 && /opt/fleetwright/bin/pip install --no-index --no-deps /wheels/*.whl \
 && /opt/fleetwright/bin/pip uninstall --yes setuptools pip

FROM ${BASE} AS runtime
# The numbers are fixed, so that volumes keep their owner, and an orchestrator can check that it is not root.
RUN groupadd --gid 10001 fleetwright \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/fleetwright \
    --shell /usr/sbin/nologin fleetwright \
 && install --directory --owner=10001 --group=10001 --mode=0700 /var/lib/fleetwright /var/lib/fleetwright-agent
COPY --from=build /opt/fleetwright /opt/fleetwright
# Nothing is written but to the data folder: the root may be read-only.
ENV PATH=/opt/fleetwright/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Fleetwright" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Both programs handle it, also as process 1.
STOPSIGNAL SIGTERM

FROM runtime AS agent
LABEL org.opencontainers.image.description="The reference agent of the Fleetwright control plane"
WORKDIR /var/lib/fleetwright-agent
VOLUME /var/lib/fleetwright-agent
# It runs scripts, and what these leave running becomes a child of process 1, which should then be one that
# reaps: start it with `--init` (Compose: `init: true`).
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s \
  CMD ["sh", "-c", "fleetwright-agent status --state /var/lib/fleetwright-agent -o json | grep -q '\"connected\": true'"]
ENTRYPOINT ["fleetwright-agent"]
CMD ["run", "--state", "/var/lib/fleetwright-agent"]

FROM runtime AS server
LABEL org.opencontainers.image.description="The server and the command of the Fleetwright control plane"
ENV FLEETWRIGHT_DATA_DIR=/var/lib/fleetwright
WORKDIR /var/lib/fleetwright
VOLUME /var/lib/fleetwright
# Agents, administrators, enrolment. Health and metrics, on 7446, are not authenticated and stay on the
# loopback unless FLEETWRIGHT_HEALTH_BIND_HOST says otherwise.
EXPOSE 7443 7444 7445
# An answer other than 200 is an error to urlopen.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:%s/readyz' % os.environ.get('FLEETWRIGHT_HEALTH_PORT', '7446'), timeout=4)"]
# No init process: the server handles its signals and starts no other process.
ENTRYPOINT ["fleetwright"]
CMD ["serve"]
