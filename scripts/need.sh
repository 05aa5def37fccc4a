#!/usr/bin/env bash
# Makes sure that commands exist, installing their Debian or Ubuntu packages where they do not.
#
#   scripts/need.sh COMMAND:PACKAGE...
#
# Rust itself is checked and never installed: which toolchain a machine has is its owner's choice.
set -euo pipefail

fail() {
    printf 'legation: %s\n' "$*" >&2
    exit 69
}

# Debian keeps PostgreSQL's server programs, and some daemons, outside of an ordinary PATH.
found() {
    PATH="$PATH:/usr/sbin:$(printf '%s:' /usr/lib/postgresql/*/bin)" command -v "$1" >/dev/null
}

command -v cargo >/dev/null || fail 'there is no cargo in PATH: install Rust 1.95 or newer from https://rustup.rs'

packages=()
for pair in "$@"; do
    found "${pair%%:*}" || packages+=("${pair#*:}")
done
[ ${#packages[@]} -gt 0 ] || exit 0

by_hand="install ${packages[*]} by hand and try again"
command -v apt-get >/dev/null || fail "this machine lacks ${packages[*]} and has no apt-get: $by_hand"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "this machine lacks ${packages[*]}, and installing them needs root or sudo: $by_hand"
    as_root=(sudo)
    # Without a terminal nobody can answer a password prompt.
    [ -t 0 ] || as_root=(sudo -n)
fi

printf 'legation: installing %s\n' "${packages[*]}" >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update </dev/null >&2 ||
    fail "apt-get update failed: $by_hand"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${packages[@]}" \
    </dev/null >&2 || fail "apt-get install failed: $by_hand"
