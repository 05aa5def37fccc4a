#!/usr/bin/env bash
# Builds release programs and measures a Manager beside nats-server and mosquitto, round after round; prints a line of
# JSON for each server, phase and round, and the ratios on standard error.
#
#   scripts/bench-compare.sh [ARGUMENT...]     arguments go to legation-compare, for instance --rounds 1
#
# Every server that is measured is started and ended here, on a port of its own. On a machine with systemd the
# packages also start a service each, on the usual port of 127.0.0.1: it is neither used nor touched here.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/need.sh cc:build-essential nats-server:nats-server mosquitto:mosquitto
cargo build --locked --release -p legation-manager -p legation-testkit --bin legation-manager --bin legation-compare
exec "${CARGO_TARGET_DIR:-target}/release/legation-compare" "$@"
