#!/usr/bin/env bash
# Runs every drill in the lab and keeps what an outside client measured.
#   scripts/bench-drills.sh RUNS
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${1:-10}
mainstay=target/release/mainstay
file=examples/shop/mainstay.toml
out=target/bench
drills=(postmaster-kill node-kill node-freeze network-cut switchover standby-kill agent-kill)

mkdir -p "$out"
trap 'scripts/clean-lab.sh' EXIT
trap 'exit 130' INT TERM HUP
"$mainstay" up "$file"

failed=0
for drill in "${drills[@]}"; do
    echo "bench: $drill, $runs runs"
    "$mainstay" drill run "$drill" --runs "$runs" --json >"$out/drill-$drill.json" || failed=1
done

printf '\n%-16s %10s %10s %10s   (write outage in ms, %s runs)\n' drill min median max "$runs"
for drill in "${drills[@]}"; do
    # The last object named outage_ms is the summary; its three keys have this order.
    tr -d ' \n' <"$out/drill-$drill.json" |
        sed -n 's/.*"outage_ms":{"min":\([0-9.]*\),"median":\([0-9.]*\),"max":\([0-9.]*\)}.*/\1 \2 \3/p' |
        xargs -r printf '%-16s %10s %10s %10s\n' "$drill"
done
exit $failed
