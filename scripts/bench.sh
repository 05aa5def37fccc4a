#!/usr/bin/env bash
# Builds release programs and measures a Manager under load; prints a line of JSON for each phase.
#
#   scripts/bench.sh [ARGUMENT...]     arguments go to legation-load, for instance --delegates 10000
#
# Figures of processor time hold on a busy machine, those of wall time do not: look at load_average.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/need.sh cc:build-essential
target=${CARGO_TARGET_DIR:-target}

cargo build --locked --release -p legation-manager -p legation-testkit --bin legation-manager --bin legation-load
cargo build --locked --profile delegate -p legation-delegate --bin legation-delegate
exec "$target/release/legation-load" --delegate "$target/delegate/legation-delegate" "$@"
