#!/usr/bin/env bash
# Counts the instructions of single operations under callgrind and holds them to their baseline.
#
#   scripts/bench-instructions.sh [--record]     --record makes the counts the baseline
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/need.sh cc:build-essential valgrind:valgrind
exec cargo bench --locked -p legation-testkit --bench instructions -- "$@"
