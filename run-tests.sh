#!/usr/bin/env bash
# Installs what is missing, then checks style, types and behaviour. Arguments go to pytest.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source scripts/setup-env.sh

# The tests' models are tiny: more threads would only wait for each other.
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

echo "-- ruff"
ruff check .
ruff format --check .
echo "-- mypy"
mypy
echo "-- pytest"
# A process a core; a file's tests share what is costly to set up, so they stay together.
pytest -n auto --maxprocesses 4 --dist loadfile "$@"
