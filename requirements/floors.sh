#!/usr/bin/env bash
# `make test-fast` on the lowest versions that pyproject.toml allows, in an environment of its own (needs uv to resolve).
# torch and torchvision stay at those of pins.in: the lowest have no build for CPUs in the ordinary registry.
set -euo pipefail
cd "$(dirname "$0")/.."
floors=$(mktemp -d)
trap 'rm -r "$floors"' EXIT
uv pip compile --quiet --python-version 3.11 --resolution lowest-direct --extra dev -c requirements/pins.in pyproject.toml \
  | grep -vE '^(torch|triton|nvidia-|cuda-)' > "$floors/lowest.txt"
"${PYTHON:-python3.11}" -m venv "$floors/venv"
"$floors/venv/bin/pip" install --quiet -r <(grep '^torch==' requirements/pins.in)
"$floors/venv/bin/pip" install --quiet --no-deps -r "$floors/lowest.txt" -r <(grep '^torchvision==' requirements/pins.in)
PYTHONPATH=src "$floors/venv/bin/python" -m pytest -q -n auto -m "not process"
