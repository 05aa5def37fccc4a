#!/usr/bin/env bash
# Makes sure that there is a Python environment of the tests' own, and says where its programs are.
#
#   scripts/python.sh      prints the directory
#
# The environment lies below cargo's target directory and holds what scripts/python.txt names, in these versions. When it
# is there already this takes no time and asks no network; several may call it at once.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    printf 'legation: %s\n' "$*" >&2
    exit 69
}

list=$PWD/scripts/python.txt
home=${CARGO_TARGET_DIR:-$PWD/target}/python
stamp=$home/ready
wanted=$(cksum <"$list")

ready() {
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && "$home/bin/python3" -c '' 2>/dev/null
}

if ! ready; then
    mkdir -p "$(dirname "$home")"
    exec 9>"$home.lock"
    flock 9
    # Somebody else may have made it meanwhile.
    if ! ready; then
        scripts/need.sh python3:python3
        # Debian has the module that makes environments in a package of its own.
        python3 -c 'import ensurepip, venv' 2>/dev/null || scripts/need.sh python3-venv:python3-venv
        rm -rf "$home"
        {
            python3 -m venv "$home" &&
                "$home/bin/pip" install --quiet --disable-pip-version-check --no-input --require-virtualenv -r "$list"
        } >&2 || fail "the Python packages of the tests cannot be installed: look above, and see that PyPI can be reached"
        printf '%s\n' "$wanted" >"$stamp"
    fi
fi
printf '%s\n' "$home/bin"
