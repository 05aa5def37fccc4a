#!/bin/sh
# Starts and stops a private PostgreSQL cluster for tests.
#
#   scripts/postgres.sh start DIR   creates a cluster in DIR, starts it and prints its URL
#   scripts/postgres.sh stop DIR    stops it by its process id and removes DIR
#
# It listens on a free port of 127.0.0.1 and on a socket in DIR, and trusts whoever reaches these. It runs from
# the machine's own server programs; as root it installs the distribution's package where there is none.
set -eu

main() {
    [ $# -eq 2 ] || fail "usage: $0 start|stop DIR"
    case $1 in
    start) start "$2" ;;
    stop) stop "$2" ;;
    *) fail "usage: $0 start|stop DIR" ;;
    esac
}

start() {
    [ ! -e "$1" ] || [ -z "$(ls -A "$1")" ] || fail "$1 is not empty: stop what runs there, or name another directory"
    programs=$(find_programs) || install_programs
    programs=${programs:-$(find_programs)} || fail "PostgreSQL's server programs are not installed: install the package postgresql"
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    give "$dir"
    # The owner may not be let through a directory of root's; and a socket's path has at most 107 bytes.
    if ! as_owner test -w "$dir" 2>/dev/null || [ ${#dir} -gt 80 ]; then
        elsewhere=$(mktemp -d /tmp/legation-postgres.XXXXXX)
        ln -s "$elsewhere" "$dir/elsewhere"
        dir=$elsewhere
        give "$dir"
    fi
    log=$dir/log
    as_owner "$programs/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$log" 2>&1 ||
        fail "initdb failed: $(tail -n 5 "$log")"
    # A port that was free a moment ago may be taken by now, so a few are tried.
    for _ in 1 2 3 4 5 6 7 8; do
        port=$(free_port)
        if as_owner "$programs/pg_ctl" -D "$dir/data" -l "$dir/server.log" -w -t 60 -o "-p $port -k $dir \
            -c listen_addresses=127.0.0.1 -c max_connections=300 -c shared_buffers=64MB" start >>"$log" 2>&1; then
            echo "postgres://postgres@127.0.0.1:$port/postgres"
            return
        fi
    done
    fail "the server did not start: $(tail -n 5 "$dir/server.log")"
}

stop() {
    if [ -L "$1/elsewhere" ]; then
        (stop "$(readlink "$1/elsewhere")")
        rm "$1/elsewhere"
    fi
    pidfile=$1/data/postmaster.pid
    if [ -f "$pidfile" ]; then
        pid=$(head -n 1 "$pidfile")
        # The number may be another process's by now.
        if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$(cd "$1" && pwd)/data"; then
            kill -INT "$pid"
            while [ -f "$pidfile" ] && kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
        fi
    elif [ -d "$1" ] && [ ! -d "$1/data" ] && [ ! -f "$1/log" ] && [ -n "$(ls -A "$1")" ]; then
        fail "$1 is not a cluster of this script: it is left as it is"
    fi
    rm -rf "$1"
}

give() {
    [ "$(id -u)" -ne 0 ] || chown postgres "$1"
    chmod 700 "$1"
}

# initdb and the server refuse to run as root.
as_owner() {
    if [ "$(id -u)" -ne 0 ]; then
        (cd "$dir" && "$@")
    elif command -v setpriv >/dev/null; then
        (cd "$dir" && setpriv --reuid=postgres --regid=postgres --init-groups "$@")
    else
        (cd "$dir" && runuser -u postgres -- "$@")
    fi
}

# The newest installed version.
find_programs() {
    found=$(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null | sort -t/ -k5 -V | tail -n 1)
    [ -n "$found" ] || found=$(pg_config --bindir 2>/dev/null)/postgres
    [ -x "$found" ] && dirname "$found"
}

install_programs() {
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null || return 0
    # The package would start a cluster of its own.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y postgresql; } >&2
}

# A number outside the range from which the kernel hands out ports by itself, drawn from the kernel's randomness.
free_port() {
    echo $((20000 + $(od -An -N2 -tu2 /dev/urandom | tr -d ' ') % 12000))
}

fail() {
    echo "$1" >&2
    exit 1
}

main "$@"
