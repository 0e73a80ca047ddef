#!/usr/bin/env bash
# Installs what a Debian machine with Rust lacks for building, testing and showing Mainstay.
#
# Safe to run again: what is there is left alone, and when all is there nothing is asked of the network. Starts no
# service; a PostgreSQL cluster or an etcd that was there before is not touched.
set -euo pipefail

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# Debian keeps some of these out of an ordinary user's PATH.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

have() { command -v "$1" >/dev/null 2>&1; }
have_postgres() { have postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }
have_protos() { have protoc && [ -e /usr/include/google/protobuf/descriptor.proto ]; }

# What is needed, for whom, and the package that brings it.
missing_packages() {
    have_postgres || echo postgresql
    have nft || echo nftables                                  # the gate; cuts in drills
    have ip || echo iproute2                                   # the lab's network
    have etcd || echo etcd-server                              # tests of the etcd back end
    have mkfs.ext4 || echo e2fsprogs                           # full and hung disks in drills
    { have unshare && have fsfreeze && have losetup; } || echo util-linux
    have mount || echo mount
    { have cc && have make; } || echo build-essential          # aws-lc-rs and the Makefile
    have podman || echo podman runc                            # instances that are containers
    have_protos || echo protobuf-compiler libprotobuf-dev      # the etcd client's build
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

install_packages() {
    have apt-get || die "this machine has no apt-get; install by hand what brings: $*"
    if [ "$(id -u)" != 0 ] && ! { have sudo && sudo -n true 2>/dev/null; }; then
        die "missing: $*" "installing needs root: run \`sudo make setup\`, or have an administrator install them"
    fi
    say "installing $*"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    as_root "${apt[@]}" update -q || die "the package lists cannot be fetched: is there a network?"
    case " $* " in *" postgresql "*) prevent_cluster "${apt[@]}" ;; esac
    as_root "${apt[@]}" install -q -y --no-install-recommends "$@" ||
        die "apt-get could not install: $*" "is there a network, and does the distribution have these packages?"
    case " $* " in *" etcd-server "*) stop_service etcd ;; esac
}

# Debian makes and starts a cluster with the server package unless told otherwise before; Mainstay makes its own.
prevent_cluster() {
    local conf=/etc/postgresql-common/createcluster.conf
    as_root "$@" install -q -y --no-install-recommends postgresql-common || die "apt-get could not install postgresql-common"
    as_root sed -i 's/^#\? *create_main_cluster *=.*/create_main_cluster = false/' "$conf"
    grep -q '^create_main_cluster = false' "$conf" || die "$conf has no line \`create_main_cluster\` to set to false"
}

# For a service that was not there a minute ago: its package starts it, and its ports would be in the way.
stop_service() {
    if [ -d /run/systemd/system ]; then
        as_root systemctl disable --now "$1" >/dev/null 2>&1 || say "could not stop the new service $1"
    fi
}

need_rust() {
    have cargo || die "cargo is not on PATH: install Rust first (rust-toolchain and version: see Cargo.toml)"
    local missing=()
    cargo fmt --version >/dev/null 2>&1 || missing+=(rustfmt)
    cargo clippy --version >/dev/null 2>&1 || missing+=(clippy)
    [ ${#missing[@]} = 0 ] && return
    have rustup || die "missing: ${missing[*]}; install these parts of the Rust tool chain"
    say "adding ${missing[*]} to the tool chain"
    rustup component add "${missing[@]}" || die "rustup could not add ${missing[*]}: is there a network?"
}

# Optional: `make test` runs the same tests with `cargo test`, more slowly, when nextest cannot be had.
want_nextest() {
    cargo nextest --version >/dev/null 2>&1 && return
    if [ "${MAINSTAY_NEXTEST:-yes}" = no ]; then
        say "cargo-nextest is missing and not wanted; the tests run with cargo test"
        return
    fi
    say "building cargo-nextest (once, some minutes; MAINSTAY_NEXTEST=no does without it)"
    # Built to be ready soon, not to be fast.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        timeout 1200 cargo install --quiet --locked cargo-nextest ||
        say "cargo-nextest could not be built; the tests run with cargo test"
}

need_rust
mapfile -t packages < <(missing_packages | tr ' ' '\n' | sort -u)
if [ ${#packages[@]} != 0 ]; then
    install_packages "${packages[@]}"
    mapfile -t packages < <(missing_packages | tr ' ' '\n' | sort -u)
    [ ${#packages[@]} = 0 ] || die "installed, but still not found: ${packages[*]}"
fi
[ "${1:-}" != --for-tests ] || want_nextest
say "all is there"
