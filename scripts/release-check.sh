#!/usr/bin/env bash
# Builds release programs and holds their size and memory against the budgets. Exits non-zero when one is exceeded.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/need.sh cc:build-essential
target=${CARGO_TARGET_DIR:-target}

cargo build --release -p legation-manager -p legation-cli --bins
cargo build --profile delegate -p legation-delegate --bins
cargo build -p legation-testkit --example release_check
# What measures is itself not measured: it is a dev build beside the programs.
"$target/debug/examples/release_check" \
    "$target/release/legation-manager" "$target/delegate/legation-delegate" "$target/release/legation"
