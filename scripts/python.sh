#!/usr/bin/env bash
# Makes the one Python environment of the tests, and prints its interpreter. What is in it is pinned in
# scripts/python.txt; when that has not changed since, this takes no time.
#
#   PYTHON=$(scripts/python.sh)
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=scripts/python.txt
venv=${CARGO_TARGET_DIR:-target}/python
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac

# Two at once would be in each other's way.
mkdir -p "${venv%/*}"
exec 9>"$venv.lock"
flock 9

if ! cmp -s "$wanted" "$venv/made-of"; then
    rm -rf "$venv"
    # Debian keeps what makes environments in a package of its own.
    if ! python3 -c 'import ensurepip' >/dev/null 2>&1; then
        scripts/need.sh python3-ensurepip:python3-venv >&2
    fi
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --retries 5 -r "$wanted" >&2
    cp "$wanted" "$venv/made-of"
fi
printf '%s\n' "$venv/bin/python"
