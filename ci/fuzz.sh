#!/bin/sh
# Runs each fuzz target with libFuzzer: ci/fuzz.sh [SECONDS each, 30 by default].
#
# Needs cargo-fuzz (installed when missing) and a C++ compiler. The sanitizer's flags are unstable, so a stable
# compiler is told to take them (RUSTC_BOOTSTRAP). Fails when a target crashes; the input is then in
# fuzz/artifacts/. What was learned stays in fuzz/corpus/ (not in git) for the next run.
set -eu

seconds=${1:-30}
cd "$(dirname "$0")/.."

if ! cargo fuzz --version >/dev/null 2>&1; then
    cargo install cargo-fuzz --locked
fi

export RUSTC_BOOTSTRAP=1
for target in $(cargo fuzz list); do
    echo "== $target, $seconds s"
    # Seeds: the bytes of a few operations, so that a short run begins behind the first lines of HTTP.
    mkdir -p "fuzz/corpus/$target"
    [ -d "fuzz/seeds/$target" ] && cp -n "fuzz/seeds/$target"/* "fuzz/corpus/$target/" 2>/dev/null || true
    cargo fuzz run "$target" -- -max_total_time="$seconds" -max_len=16384 -rss_limit_mb=512 -timeout=10 -print_final_stats=1 -verbosity=0
done
