#!/usr/bin/env bash
# Puts our proxy, Debian's HAProxy and Debian's nginx before the same three instances and hurts one of them; then what each
# costs. Tables in target/bench/proxy.md and .json.
#   scripts/bench-proxy.sh RUNS [faults] [crowd] [cost]
# Needs root: everything runs in a network namespace of its own, which ends with it.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'bench-proxy: %s\n' "$*"; }
die() {
    printf 'bench-proxy: %s\n' "$@" >&2
    exit 1
}

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
have() { command -v "$1" >/dev/null 2>&1; }

missing_packages() {
    have haproxy || echo haproxy
    have nginx || echo nginx-light
    have wrk || echo wrk
    have nft || echo nftables
    have ip || echo iproute2
    { have unshare && have taskset; } || echo util-linux
}

# For a service that was not there a minute ago: its package starts it.
stop_services() {
    [ -d /run/systemd/system ] || return 0
    for service in "$@"; do
        systemctl disable --now "$service" >/dev/null 2>&1 || true
    done
}

[ "$(id -u)" = 0 ] || die "it makes a network namespace and drops packets in it: run \`sudo make bench-proxy\`"
mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} != 0 ]; then
    have apt-get || die "this machine has no apt-get; install by hand: ${missing[*]}"
    say "installing ${missing[*]}"
    # Debian starts a new service at once; its ports might be taken.
    apt=(env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    "${apt[@]}" update -q >/dev/null || die "the package lists cannot be fetched: is there a network?"
    "${apt[@]}" install -q -y --no-install-recommends "${missing[@]}" || die "apt-get could not install: ${missing[*]}"
    stop_services haproxy nginx
fi

cargo build --release -p proxy --example bench_proxy --example instance
ulimit -n 20000 || say "few files may be open: the crowd and the idle connections may fail"
program=${CARGO_TARGET_DIR:-target}/release/examples/bench_proxy
exec unshare --net -- sh -c 'ip link set lo up && exec "$@"' sh "$program" "$@"
