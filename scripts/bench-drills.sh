#!/usr/bin/env bash
# Runs drills in the lab and keeps what an outside client measured, in target/bench/.
#   scripts/bench-drills.sh RUNS [DRILL...]
# Without names: the seven of the table of objectives. Drills on disks get a lab whose databases have volumes of their own.
# Where a run fails, what every node wrote down is kept beside the figures.
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${1:-10}
shift || true
mainstay=target/release/mainstay
file=examples/shop/mainstay.toml
logs=/var/lib/mainstay/lab
out=target/bench
drills=("$@")
[ ${#drills[@]} -gt 0 ] ||
    drills=(postmaster-kill node-kill node-freeze network-cut switchover standby-kill agent-kill)

mkdir -p "$out"
trap 'scripts/clean-lab.sh' EXIT
trap 'exit 130' INT TERM HUP

failed=0
# run DRILL: all its runs, one summary.
run() {
    echo "bench: $1, $runs runs"
    if ! "$mainstay" drill run "$1" --runs "$runs" --json >"$out/drill-$1.json"; then
        failed=1
        rm -rf "$out/logs-$1"
        mkdir -p "$out/logs-$1"
        cp -a "$logs"/*/logs "$logs"/*/nodes/*/log "$out/logs-$1/" --backup=numbered || true
        echo "bench: $1 FAILED; what the nodes wrote down is in $out/logs-$1"
    fi
}

# lab PATTERN OPTION...: a lab for the drills whose names match, made with these options.
lab() {
    local pattern=$1 drill up=no
    shift
    for drill in "${drills[@]}"; do
        [[ $drill =~ $pattern ]] || continue
        [ $up = yes ] || "$mainstay" up "$file" "$@"
        up=yes
        run "$drill"
    done
    [ $up = no ] || "$mainstay" down
}
lab '^disk-' --data-volume 512
lab '^([^d]|d[^i])'

printf '\n%-24s %9s %9s %9s %6s %8s   (%s runs; outage of writes in ms)\n' \
    drill min median max lost doubled "$runs"
for drill in "${drills[@]}"; do
    json=$(tr -d ' \n' <"$out/drill-$drill.json")
    # The last object named outage_ms is the summary; its three keys have this order.
    outage=$(sed -n 's/.*"outage_ms":{"min":\([0-9.]*\),"median":\([0-9.]*\),"max":\([0-9.]*\)}.*/\1 \2 \3/p' <<<"$json")
    sum() { grep -o "\"$1\":[0-9]*" <<<"$json" | awk -F: '{ n += $2 } END { print n + 0 }'; }
    # shellcheck disable=SC2086
    printf '%-24s %9s %9s %9s %6s %8s\n' "$drill" ${outage:-- - -} "$(sum lost)" "$(sum doubled)"
done
exit $failed
