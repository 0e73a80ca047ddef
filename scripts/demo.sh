#!/usr/bin/env bash
# From nothing to the sample system running in the lab.
set -euo pipefail
cd "$(dirname "$0")/.."

exec target/release/mainstay up examples/shop/mainstay.toml "$@"
