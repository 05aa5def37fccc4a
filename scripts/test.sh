#!/usr/bin/env bash
# Runs every test of the workspace, on SQLite and on a private PostgreSQL cluster that exists only meanwhile.
#
#   scripts/test.sh [ARGUMENT...]     arguments go to the test runner, for instance a test's name
#
# Needs no terminal, no running service and no preparation. A PostgreSQL, NATS or MQTT server that the machine runs
# already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/need.sh cc:build-essential initdb:postgresql tinyproxy:tinyproxy-bin nats-server:nats-server \
    mosquitto:mosquitto
scripts/python.sh >/dev/null

scratch=$(mktemp -d "${TMPDIR:-/tmp}/legation-test.XXXXXX")
# PostgreSQL does not run as root; whoever it runs as must be able to reach its directory in here.
chmod 711 "$scratch"
job=''

finish() {
    status=$?
    trap - EXIT HUP INT TERM
    # The job leads a process group of its own, so this reaches a test that runs under it.
    [ -z "$job" ] || kill -TERM -- "-$job" 2>/dev/null || true
    scripts/postgres.sh stop "$scratch/postgres" || true
    rm -rf "$scratch"
    exit "$status"
}
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs in the background and waits, because bash acts on a signal only between commands.
run() {
    printf '\n== %s\n' "$*"
    set -m
    "$@" </dev/null &
    job=$!
    set +m
    wait "$job"
    job=''
}

# Made before the tests, so that none of them waits for a download.

LEGATION_TEST_POSTGRES=$(scripts/postgres.sh start "$scratch/postgres")
export LEGATION_TEST_POSTGRES

# The stories run the programs themselves, which building the tests alone would not make.
run cargo build --workspace --bins
if cargo nextest --version >/dev/null 2>&1; then
    run cargo nextest run --workspace "$@"
else
    run cargo test --workspace --lib --bins --tests "$@"
fi
[ $# -gt 0 ] || run cargo test --workspace --doc
