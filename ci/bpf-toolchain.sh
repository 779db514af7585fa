#!/usr/bin/env bash
# Installs what building agent-ebpf from source needs on Debian 12 and later: a rustc that ships
# `core` for bpfel-unknown-none, and bpf-linker linked against the same LLVM.
# Prints the folder to put on PATH. Safe to run again. Needs root for apt only on the first run.
set -euo pipefail
tools=${TAPSTACK_BPF_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/tapstack/bpf-tools}
linker_version=0.13.0

have_core() { ls /usr/lib/rustlib/bpfel-unknown-none/lib/libcore-*.rlib >/dev/null 2>&1; }
if ! /usr/bin/rustc --version >/dev/null 2>&1 || ! have_core; then
  if [ "$(id -u)" != 0 ]; then
    echo "bpf-toolchain: run once as root to install rustc-web and libstd-rust-web-dev-bpf (Debian packages)" >&2
    exit 1
  fi
  apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends)
  apt-get update >&2
  # Debian 12 and 13 carry the pair for browsers; later releases use the plain names.
  "${apt[@]}" install rustc-web libstd-rust-web-dev-bpf >&2 || "${apt[@]}" install rustc libstd-rust-dev-bpf >&2
fi

llvm=$(/usr/bin/rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
prefix=$tools/$linker_version-llvm$llvm
if ! "$prefix/bin/bpf-linker" --version >/dev/null 2>&1; then
  # bpf-linker's build wants nothing of an LLVM installation but <prefix>/lib/libLLVM.so.
  mkdir -p "$prefix/llvm/lib"
  lib=$(ls /usr/lib/*/libLLVM-"$llvm".so /usr/lib/*/libLLVM.so."$llvm"* 2>/dev/null | head -n 1)
  ln -sfn "$lib" "$prefix/llvm/lib/libLLVM.so"
  LLVM_PREFIX=$prefix/llvm CARGO_PROFILE_DEV_DEBUG=0 cargo install bpf-linker --debug --locked \
    --version "$linker_version" --no-default-features --features "llvm-$llvm" --root "$prefix" >&2
fi
echo "$prefix/bin"
