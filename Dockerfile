# The command with what extraction needs. EXTRAS=ray for the machines of a cluster:
#   docker build --build-arg EXTRAS=ray -t dtwpt:ray .
FROM python:3.12-slim AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake g++ make \
    && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim
ARG EXTRAS=extract
# KubeRay asks the processes of Ray by wget how they are.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/*.whl)[$EXTRAS]" && rm -rf /wheels
RUN useradd --create-home --uid 1000 dtwpt
USER dtwpt
WORKDIR /data
ENTRYPOINT ["dtwpt"]
CMD ["--help"]
