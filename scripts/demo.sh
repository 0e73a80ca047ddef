#!/usr/bin/env bash
# From nothing to the sample system running in the lab, its primary's node killed under load, and an account of it.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${MAINSTAY_BIN:-target/release}
mainstay=$bin/mainstay
page=http://127.0.0.1:8080
account=$(mktemp -d)
load=
trap '[ -z "$load" ] || kill "$load" 2>/dev/null || true; rm -rf "$account"' EXIT
trap 'exit 130' INT TERM HUP

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1. One file, three nodes in three sites: a web shop, a PostgreSQL database, a route to each"
if "$mainstay" status --system shop --json >/dev/null 2>&1; then
    echo "The system shop runs already; it is used as it is."
else
    "$mainstay" up examples/shop/mainstay.toml
fi
"$mainstay" status --system shop

say "2. Customers: 20 orders a second through $page, each with a key, for 25 s"
"$bin/shop" load --url "$page" --rate 20 --for 25 --json >"$account/load.json" 2>"$account/load.err" &
load=$!
sleep 2

say "3. The node of the primary loses power: its links go silent first, then every process on it is killed"
since=$(date +%s)
verdict=0
"$mainstay" drill run node-kill --system shop || verdict=$?

say "4. What happened, by the system's own account"
"$mainstay" events --system shop --since "$(($(date +%s) - since + 1))s"

say "5. What the customers saw"
wait "$load" || true
load=
cat "$account/load.json" "$account/load.err"

say "6. Where it stands now"
"$mainstay" status --system shop
printf '\nThe shop goes on answering at %s\n' "$page"
printf 'Look around: %s status --watch | events --follow | drill list\n' "$mainstay"
printf 'Take it down: %s down shop\n' "$mainstay"
[ "$verdict" = 0 ] || echo "The drill's verdict was not green (exit code $verdict); see above."
