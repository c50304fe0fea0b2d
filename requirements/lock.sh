#!/usr/bin/env bash
# Writes the three hashed locks beside this file from pyproject.toml and pins.in (needs uv; run by `make lock`).
set -euo pipefail
cd "$(dirname "$0")/.."
compile() { uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url "$@"; }

whole=$(mktemp)
compile --extra dev -c requirements/pins.in pyproject.toml -o "$whole"
mapfile -t cuda < <(grep -oE '^(nvidia|cuda|triton)[a-z0-9-]*(\[[a-z,]*\])?==' "$whole" | sed -E 's/(\[.*)?==//' | sort -u)

skip=(--no-emit-package torch)
for name in "${cuda[@]}"; do skip+=(--no-emit-package "$name"); done
compile --extra dev -c requirements/pins.in "${skip[@]}" pyproject.toml -o requirements/all.lock
grep '^torch==' requirements/pins.in | compile --no-deps - >> requirements/all.lock

# pip on a machine with the registry's (CUDA) torch needs hashes for what that torch brings along.
awk -v names="$(IFS='|'; echo "${cuda[*]}")" '
  /^[a-zA-Z0-9]/ { keep = $0 ~ "^(" names ")(\\[|==)" } keep' "$whole" > requirements/cuda.constraints
rm "$whole"
