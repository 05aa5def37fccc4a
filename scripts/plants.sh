#!/usr/bin/env bash
# Plants faults in a copy of the sources, one after the other, and makes sure that each is caught by the test that its patch
# names: a guard whose absence no test notices guards nothing.
#
#   scripts/plants.sh [NAME...]     only those of crates/testkit/plants
#
# Each fault is a build and a test, about a minute. There is no switch for it in the programs themselves.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/need.sh cc:build-essential git:git
root=$PWD
copy=$(mktemp -d "${TMPDIR:-/tmp}/legation-plants.XXXXXX")
trap 'rm -rf "$copy"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
git ls-files -z | xargs -0 cp --parents -t "$copy"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/plants

names=("$@")
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(cd crates/testkit/plants && printf '%s\n' *.patch | sed 's/\.patch$//')

escaped=()
for name in "${names[@]}"; do
    patch=$root/crates/testkit/plants/$name.patch
    test=$(sed -n 's/^Caught by: //p' "$patch")
    printf '\n== %s: %s\n' "$name" "$test"
    (cd "$copy" && git apply "$patch")
    # What does not compile is not caught by a test.
    (cd "$copy" && cargo test --quiet --locked -p legation-testkit --test it --no-run)
    if (cd "$copy" && cargo test --quiet --locked -p legation-testkit --test it -- --exact "$test" >/dev/null 2>&1); then
        escaped+=("$name")
        printf 'NOT caught\n'
    else
        printf 'caught\n'
    fi
    (cd "$copy" && git apply --reverse "$patch")
    # The test must fail for the fault alone.
    (cd "$copy" && cargo test --quiet --locked -p legation-testkit --test it -- --exact "$test" >/dev/null) || {
        printf 'legation: %s fails without the fault as well: mend that first\n' "$test" >&2
        exit 1
    }
done
[ ${#escaped[@]} -eq 0 ] || {
    printf '\nlegation: no test caught: %s\n' "${escaped[*]}" >&2
    exit 1
}
printf '\n== every fault was caught\n'
