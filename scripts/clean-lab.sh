#!/usr/bin/env bash
# Removes what an interrupted lab or test left on this machine.
#
# Takes only what the labs recorded as theirs; a process is ended by its id, never by its name.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

for mainstay in target/release/mainstay target/debug/mainstay; do
    if [ -x "$mainstay" ]; then
        exec "$mainstay" down --all
    fi
done
echo "clean-lab: nothing was built here, so nothing was started"
