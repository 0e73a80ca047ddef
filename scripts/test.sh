#!/usr/bin/env bash
# Runs every test of the workspace and ends with one line of summary.
set -uo pipefail
cd "$(dirname "$0")/.."

if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace "$@"
else
    # One at a time: the groups of .config/nextest.toml do not exist here.
    RUST_TEST_THREADS=1 cargo test --workspace --no-fail-fast "$@"
fi
result=$?
if [ $result = 0 ]; then
    echo "test: all tests passed"
else
    echo "test: FAILED (exit code $result); the reasons stand above"
fi
exit $result
