#!/usr/bin/env bash
# Sets up and runs the tests. Parts, all by default, in this order:
#   lint     formatting, clippy
#   nix      the flake and every .nix file
#   object   the committed eBPF objects are what the source gives
#   fuzz     a short run of each fuzz target (FUZZ_SECONDS, 20 by default)
#   unit     unit, property and golden tests of every crate, the command line, replayed recordings
#   kernel   the real kernel of this machine, the real binary (as root)
#   kernels  other kernels, booted in qemu
# Usage: ci/test.sh [PART …]
set -euo pipefail
cd "$(dirname "$0")/.."
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(lint nix object fuzz unit kernel kernels)

root() { [ "$(id -u)" = 0 ]; }
lint() {
  cargo fmt --all --check
  cargo clippy --workspace --exclude agent-ebpf --all-targets --locked -- -D warnings
}
object() { ci/bpf-object.sh check; }
unit() { cargo test --workspace --exclude agent-ebpf --exclude integration --locked; }
fuzz() { ci/fuzz.sh "${FUZZ_SECONDS:-20}"; }
kernel() {
  if ! root; then
    echo "skipped: the kernel tests need root"
    return
  fi
  cargo build --release --locked
  TAPSTACK_BIN=$PWD/target/release/tapstack cargo test --package integration --locked -- --test-threads=1
}
kernels() {
  cargo build --release --locked
  integration/kernels/run.sh target/release/tapstack
}
nix() { ci/nix.sh; }

ci/packages.sh
# OpenSSL of other releases, for tests that say so when it is missing.
[ "$(uname -m)" != x86_64 ] || ci/libssl.sh >/dev/null || echo "ci/libssl.sh: not all of it could be fetched" >&2
times=()
for part in "${parts[@]}"; do
  echo "=== $part"
  start=$SECONDS
  # In a process of its own, with -e in force.
  bash -euo pipefail -c "$(declare -f "$part" root); $part"
  times+=("$part $((SECONDS - start)) s")
done
echo "=== times: $(printf '%s, ' "${times[@]}" | sed 's/, $//')"
