#!/usr/bin/env bash
# Removes what an interrupted lab or test left on this machine.
#
# Takes only what the labs recorded as theirs: first every recorded system by `mainstay down`, then network namespaces
# that carry a lab's name and belong to no record, with the processes inside, each ended by its id.
#   scripts/clean-lab.sh [PREFIX]     PREFIX of the namespaces, ms- unless given
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

prefix=${1:-ms-}
if [ "$(id -u)" = 0 ]; then
    base=/var/lib/mainstay/lab
else
    base=${XDG_STATE_HOME:-$HOME/.local/state}/mainstay/lab
fi

take_down() {
    local mainstay failed=0 directory
    for mainstay in target/release/mainstay target/debug/mainstay ""; do
        [ ! -x "$mainstay" ] || break
    done
    for directory in "$base"/*/; do
        [ -e "$directory/lab.json" ] || continue
        echo "clean-lab: taking down $(basename "$directory")"
        # Where nothing is built, what follows takes the namespaces and what runs in them.
        [ -n "$mainstay" ] || { echo "clean-lab: no mainstay is built here, its record stays"; continue; }
        "$mainstay" down "$(basename "$directory")" || failed=1
    done
    return $failed
}

# The processes inside are killed twice, because one may be born while the others die.
remove_namespaces() {
    command -v ip >/dev/null || return 0
    local name pid round failed=0
    for name in $(ip netns list 2>/dev/null | awk '{ print $1 }' | grep "^$prefix"); do
        echo "clean-lab: removing namespace $name"
        for round in 1 2; do
            for pid in $(ip netns pids "$name"); do
                kill -KILL "$pid" 2>/dev/null
            done
        done
        ip netns del "$name" || failed=1
    done
    return $failed
}

failed=0
[ "$prefix" != ms- ] || take_down || failed=1
[ "$(id -u)" != 0 ] || remove_namespaces || failed=1
exit $failed
