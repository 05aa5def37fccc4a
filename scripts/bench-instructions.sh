#!/usr/bin/env bash
# Counts the instructions of single operations under callgrind and holds them to their baseline.
#
#   scripts/bench-instructions.sh [--record | --strict]     --record makes the counts the baseline
#
# With other tools than the baseline's nothing can be compared: that is said and is no failure, but with --strict.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/need.sh cc:build-essential valgrind:valgrind
exec cargo bench --locked -p legation-testkit --bench instructions -- "$@"
