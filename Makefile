# `make repro` and `make test` are all a newcomer needs; both make the environment first.
PYTHON ?= python3
BIN := .venv/bin
NEW_ENOUGH := 'import sys; sys.exit(sys.version_info < (3, 11))'
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Compiled modules are kept, whatever the shell says: the pipeline and its tests start many processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup repro test test-fast test-elsewhere check lock floors benchmarks

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(BIN)/.ready  ## the environment in .venv, every package by its hash (pip itself may be renewed)

$(BIN)/.ready: requirements/all.lock requirements/cpu.lock requirements/cuda.constraints pyproject.toml
	@# An environment of a Python that does not do is no environment.
	@$(BIN)/python -c $(NEW_ENOUGH) 2>/dev/null || $(PYTHON) -c $(NEW_ENOUGH) 2>/dev/null || { \
	  echo "hiwl needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo not there):" \
	  "make $(MAKECMDGOALS) PYTHON=python3.11, say"; exit 1; }
	@$(BIN)/python -c $(NEW_ENOUGH) 2>/dev/null || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	@echo "1 of 3: torch (its CPU build where pip is set up to find it, as README.md says)"
	@$(BIN)/python -m pip install --quiet --no-deps --no-index --require-hashes -r requirements/cpu.lock 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --upgrade pip
	@echo "2 of 3: every other package (a few minutes)"
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/all.lock -c requirements/cuda.constraints
	@echo "3 of 3: hiwl itself"
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

repro: setup  ## from nothing to a registered model, on the parameters committed here
	dvc repro

test: setup  ## every test
	pytest -n auto

test-fast: setup  ## every test that starts no process and takes no while
	pytest -n auto -m "not process"

test-elsewhere: setup  ## those of the page and of Spark: they need Chromium, Java 17 and `pip install pyspark`
	pytest --elsewhere

check: setup  ## format, lint, strict types
	ruff format --check .
	ruff check .
	mypy

lock: ## write requirements/*.lock anew (needs uv)
	requirements/lock.sh

floors: ## test-fast on the lowest versions that pyproject.toml allows, in an environment of its own (needs uv)
	requirements/floors.sh

benchmarks: setup  ## every benchmark, each printing its ratio, into benchmarks/results.txt (after `make repro`)
	for script in benchmarks/bench_*.py; do \
	  echo "== $$script"; python -W ignore $$script || exit 1; echo; \
	done > benchmarks/results.txt.part && mv benchmarks/results.txt.part benchmarks/results.txt
	cat benchmarks/results.txt
