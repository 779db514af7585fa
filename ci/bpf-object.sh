#!/usr/bin/env bash
# Builds the eBPF objects of both architectures from source.
#   ci/bpf-object.sh update   puts them into agent/bpf/, with the versions that built them
#   ci/bpf-object.sh check    compares them with the committed ones: byte for byte where compiler and linker
#                             are the recorded ones, else it only says that they were built
# Needs what ci/bpf-toolchain.sh installs, and llvm-objcopy (Debian: llvm).
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-check}
PATH=$(ci/bpf-toolchain.sh):$PATH
export PATH
objcopy=$(command -v llvm-objcopy || ls /usr/bin/llvm-objcopy-* 2>/dev/null | head -n 1 || true)
if [ -z "$objcopy" ]; then
  echo "bpf-object: llvm-objcopy is missing; install Debian's llvm" >&2
  exit 1
fi
rustc=${TAPSTACK_BPF_RUSTC:-/usr/bin/rustc}
versions="$("$rustc" --version)
$(bpf-linker --version)"
out=target/bpf-object
mkdir -p "$out"
for arch in x86_64 aarch64; do
  flags="--cfg=bpf_target_arch=\"$arch\""
  flags+=$'\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf'
  flags+=$'\x1f'"--remap-path-prefix=$PWD=src"
  for index in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    flags+=$'\x1f'"--remap-path-prefix=$index=dep"
  done
  RUSTC=$rustc RUSTC_BOOTSTRAP=aya_ebpf CARGO_ENCODED_RUSTFLAGS=$flags \
    cargo build --quiet --locked --package agent-ebpf --bin agent-ebpf --release \
    --target bpfel-unknown-none --target-dir "$out/$arch"
  # The BTF stays; only what a debugger would want goes.
  "$objcopy" --strip-debug "$out/$arch/bpfel-unknown-none/release/agent-ebpf" "$out/agent-ebpf-$arch.o"
done
if [ "$mode" = update ]; then
  mkdir -p agent/bpf
  cp "$out"/agent-ebpf-*.o agent/bpf/
  printf '%s\n' "$versions" > agent/bpf/BUILT-WITH
  sha256sum agent/bpf/*.o
  exit 0
fi
if [ "$versions" != "$(cat agent/bpf/BUILT-WITH)" ]; then
  echo "bpf-object: built, not compared: the committed objects were made with other versions"
  printf 'here:\n%s\nthere:\n%s\n' "$versions" "$(cat agent/bpf/BUILT-WITH)"
  exit 0
fi
for arch in x86_64 aarch64; do
  if ! cmp "$out/agent-ebpf-$arch.o" "agent/bpf/agent-ebpf-$arch.o"; then
    echo "bpf-object: agent/bpf/agent-ebpf-$arch.o is not what the source gives; run ci/bpf-object.sh update" >&2
    exit 1
  fi
done
echo "bpf-object: both committed objects are what the source gives"
