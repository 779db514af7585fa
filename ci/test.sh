#!/usr/bin/env bash
# Sets up and runs the tests. Parts, all by default, in this order:
#   lint     formatting, clippy
#   object   the committed eBPF objects are what the source gives
#   unit     unit, property and golden tests of every crate, the command line
#   fuzz     a short run of each fuzz target
#   kernel   the real kernel of this machine, the real binary (as root)
#   kernels  other kernels, booted in qemu (as root)
#   nix      the flake and every .nix file
# Usage: ci/test.sh [PART …]
set -euo pipefail
cd "$(dirname "$0")/.."
parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(lint object unit fuzz kernel kernels nix)

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
  cargo test --package integration --locked -- --test-threads=1
}
kernels() {
  if ! root; then
    echo "skipped: other kernels need root (device nodes in the initramfs)"
    return
  fi
  cargo build --release --locked
  integration/kernels/run.sh target/release/tapstack
}
nix() { ci/nix.sh; }

ci/packages.sh
times=()
for part in "${parts[@]}"; do
  echo "=== $part"
  start=$SECONDS
  # In a process of its own, with -e in force.
  bash -euo pipefail -c "$(declare -f "$part" root); $part"
  times+=("$part $((SECONDS - start)) s")
done
echo "=== times: $(printf '%s, ' "${times[@]}" | sed 's/, $//')"
