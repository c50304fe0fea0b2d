# `make repro` and `make test` are all a newcomer needs; both make the environment first.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Compiled modules are kept, whatever the shell says: the pipeline and its tests start many processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup repro test test-fast check lock benchmarks

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(BIN)/.ready  ## the environment in .venv, every package by its hash (pip itself may be renewed)

$(BIN)/.ready: requirements/all.lock requirements/cpu.lock requirements/cuda.constraints pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	# The CPU build of torch where pip is set up to find it; elsewhere the next line takes the ordinary one.
	$(BIN)/python -m pip install --quiet --no-deps --no-index --require-hashes -r requirements/cpu.lock \
	  || { echo "no CPU build of torch at hand: taking the ordinary one"; $(BIN)/python -m pip install --quiet 'pip>=25'; }
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/all.lock -c requirements/cuda.constraints
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

repro: setup  ## from nothing to a registered model, on the parameters committed here
	dvc repro

test: setup  ## every test
	pytest -n auto

test-fast: setup  ## every test that starts no process
	pytest -n auto -m "not process"

check: setup  ## format, lint, strict types
	ruff format --check .
	ruff check .
	mypy

lock: ## write requirements/*.lock anew (needs uv)
	requirements/lock.sh

benchmarks: setup  ## every benchmark, each printing its ratio, into benchmarks/results.txt (after `make repro`)
	for script in benchmarks/bench_*.py; do \
	  echo "== $$script"; python -W ignore $$script || exit 1; echo; \
	done > benchmarks/results.txt.part && mv benchmarks/results.txt.part benchmarks/results.txt
	cat benchmarks/results.txt
