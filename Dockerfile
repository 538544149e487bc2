# One image for the API, the worker and the one-shot migration: they differ in their command alone.
FROM python:3.11.14-slim-trixie

RUN apt-get update \
    && apt-get install -y --no-install-recommends tesseract-ocr \
    && rm -rf /var/lib/apt/lists/* \
    && pip install --no-cache-dir uv==0.13.9 \
    && useradd --create-home --uid 1000 rememberos \
    && install -d -o rememberos -g rememberos -m 0700 /data

ENV VIRTUAL_ENV=/opt/venv \
    PATH=/opt/venv/bin:$PATH \
    UV_NO_CACHE=1 \
    REMEMBEROS_DATA=/data \
    LOG_FORMAT=json

WORKDIR /app

# The tools for tests are in the same lock file: some 50 MB that spare a second one and its drift.
COPY requirements.lock pyproject.toml README.md ./
RUN uv venv /opt/venv && uv pip sync requirements.lock

COPY api ./api
COPY workflows ./workflows
COPY activities ./activities
COPY memory ./memory
COPY ops ./ops
COPY worker.py ./
RUN uv pip install --no-deps --no-build-isolation --editable .

USER rememberos
VOLUME /data
EXPOSE 8000
CMD ["python", "-P", "-m", "api"]
