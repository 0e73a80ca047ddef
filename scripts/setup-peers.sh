#!/usr/bin/env bash
# Installs what `make bench-peers` measures beside Mainstay: Patroni (the newest of PyPI, in an environment of its own),
# etcd and HAProxy (Debian), pg_auto_failover (Debian).
#
# Safe to run again: what is there is left alone, and when all is there nothing is asked of the network. Starts no service.
# Needs root only when a Debian package is missing. Patroni stays at the version that was installed first; remove
# target/peers to have it newest again.
set -euo pipefail
cd "$(dirname "$0")/.."

target=target/peers
# The system's own interpreter: one below a user's home is out of reach for the user that PostgreSQL runs as.
python=/usr/bin/python3

say() { printf 'setup-peers: %s\n' "$*"; }
die() {
    printf 'setup-peers: %s\n' "$@" >&2
    exit 1
}

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
have() { command -v "$1" >/dev/null 2>&1; }

# The newest PostgreSQL of Debian is the one that all systems are measured with.
bin_dir() { compgen -G '/usr/lib/postgresql/*/bin/postgres' | sort -V | tail -1 | xargs -r dirname; }

missing_packages() {
    have etcd || echo etcd-server
    have haproxy || echo haproxy
    [ -x $python ] || echo python3
    # A Debian without it makes environments without pip.
    $python -c 'import ensurepip' 2>/dev/null || echo python3-venv
}

# Not every release of Debian has it for every PostgreSQL: the bench says so and measures the others.
wanted_packages() {
    local major
    major=$(basename "$(dirname "$(bin_dir)")")
    [ -x "$(bin_dir)/pg_autoctl" ] || have pg_autoctl || echo pg-auto-failover-cli
    [ -e "$(dirname "$(bin_dir)")/lib/pgautofailover.so" ] || echo "postgresql-$major-auto-failover"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

may_install() { [ "$(id -u)" = 0 ] || { have sudo && sudo -n true 2>/dev/null; }; }

install() {
    say "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 install -q -y --no-install-recommends "$@"
}

# For a service that was not there a minute ago: its package starts it, and its ports would be in the way.
stop_services() {
    [ -d /run/systemd/system ] || return 0
    for service in "$@"; do
        as_root systemctl disable --now "$service" >/dev/null 2>&1 || say "could not stop the new service $service"
    done
}

packages() {
    local missing wanted
    mapfile -t missing < <(missing_packages)
    mapfile -t wanted < <(wanted_packages)
    [ $((${#missing[@]} + ${#wanted[@]})) != 0 ] || return 0
    have apt-get || die "this machine has no apt-get; install by hand: ${missing[*]} ${wanted[*]}"
    may_install || die "missing: ${missing[*]} ${wanted[*]}" "installing needs root: run \`sudo make bench-peers\`"
    as_root apt-get update -q >/dev/null || die "the package lists cannot be fetched: is there a network?"
    if [ ${#missing[@]} != 0 ]; then
        install "${missing[@]}" || die "apt-get could not install: ${missing[*]}"
        case " ${missing[*]} " in *" etcd-server "*) stop_services etcd ;; esac
        case " ${missing[*]} " in *" haproxy "*) stop_services haproxy ;; esac
    fi
    [ ${#wanted[@]} = 0 ] || install "${wanted[@]}" ||
        say "pg_auto_failover is not to be had here (${wanted[*]}); it is left out of the table"
}

patroni() {
    local venv=$target/venv
    if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import patroni, psycopg, etcd' 2>/dev/null; then
        return
    fi
    say "fetching Patroni from PyPI"
    rm -rf "$venv"
    mkdir -p "$target"
    $python -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check 'patroni[etcd3]' 'psycopg[binary]' ||
        die "PyPI cannot be reached"
}

[ -n "$(bin_dir)" ] || die "PostgreSQL is missing; run scripts/setup.sh first"
packages
patroni
say "all is there: Patroni $("$target/venv/bin/python" -c 'import patroni.version as v; print(v.__version__)')"
