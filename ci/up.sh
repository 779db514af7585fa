#!/usr/bin/env bash
# Builds tapstack and starts `tapstack up`. Asks for sudo only where it is needed.
# Usage: ci/up.sh [OPTIONS OF tapstack up]
set -euo pipefail
cd "$(dirname "$0")/.."
sudo=()
if [ "$(id -u)" != 0 ]; then sudo=(sudo); fi
if ! command -v cc >/dev/null; then
  "${sudo[@]}" apt-get update -q
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends build-essential
fi
if ! command -v cargo >/dev/null; then
  echo "up: Rust 1.95 or later is missing; install it with rustup (Debian 13: apt install rustup && rustup default stable)" >&2
  exit 1
fi
cargo build --release --locked
exec "${sudo[@]}" target/release/tapstack up "$@"
