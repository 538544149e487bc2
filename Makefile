# Everything that is done with this repository. `make help` lists it.

PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,\
	$(if $(shell $(name) -c 'import sys; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$(name))))
# uv from PATH, else one of our own.
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
UV_VERSION := 0.13.9
READY := .venv/.ready
RUN := .venv/bin
PYTEST := $(RUN)/python -m pytest -q
# Each process has servers of its own; more than four would rather want memory than save time.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist worksteal

export VIRTUAL_ENV := $(CURDIR)/.venv
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo up test test-all check bench lock

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-9s %s\n", $$1, $$2}'

demo: $(READY) ## run everything here, drop the examples and search them; Ctrl-C ends it
	@exec $(RUN)/rememberos demo $(ARGS)

up: $(READY) ## run everything here; Ctrl-C ends it
	@exec $(RUN)/rememberos up $(ARGS)

test: $(READY) ## the test suite
	@exec $(PYTEST) -m "not long" $(SIDE_BY_SIDE) $(ARGS)

test-all: test ## the test suite with chaos and load, which take minutes
	@exec $(PYTEST) -m long $(ARGS)

check: $(READY) ## style, types, import contracts
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports

bench: $(READY) ## measure; the figures in the README come from here
	$(RUN)/python -m bench.start
	$(RUN)/python -m bench.write
	$(RUN)/python -m bench.search
	$(RUN)/python -m bench.ingest
	$(RUN)/python -m bench.quality

lock: $(UV) ## renew requirements.lock from pyproject.toml
	$(UV) pip compile pyproject.toml --group dev --universal --generate-hashes --quiet \
		--custom-compile-command "make lock" --output-file requirements.lock

$(READY): requirements.lock pyproject.toml | $(UV)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or say make PYTHON=…" >&2; exit 1; }
	@echo "Making the environment in .venv"
	@test -x .venv/bin/python || $(UV) venv --quiet --python $(PYTHON) .venv
	@$(UV) pip sync --quiet requirements.lock
	@$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.uv/bin/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or say make PYTHON=…" >&2; exit 1; }
	@echo "Getting uv $(UV_VERSION)"
	@$(PYTHON) -m venv .uv
	@.uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
