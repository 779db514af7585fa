#!/usr/bin/env bash
# Checks the Nix files with Debian's nix-bin, without nixpkgs and without the network:
#   1. every .nix file parses (which also finds undefined variables);
#   2. Nix itself accepts flake.lock for flake.nix: no input is missing, stale or left over;
#   3. each pin is complete, and is of the repository and branch that flake.nix names (ci/flake-lock.nix);
#   4. the flake's outputs evaluate, with a stand-in for nixpkgs that only knows names (ci/flake-outputs.nix).
# Not checked here, because it needs nixpkgs: that the package builds and that nixpkgs has what is asked of it.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v nix-instantiate >/dev/null; then
  if [ "$(id -u)" != 0 ]; then
    echo "nix: run once as root to install nix-bin (Debian package)" >&2
    exit 1
  fi
  apt-get update >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nix-bin >/dev/null
fi

# A store of its own, so that neither a daemon nor /nix is needed and nothing stays.
home=$(mktemp -d)
trap 'chmod -R u+w "$home" && rm -rf "$home"' EXIT
export HOME=$home NIX_CONF_DIR=$home NIX_STATE_DIR=$home/state NIX_STORE_DIR=$home/store NIX_LOG_DIR=$home/log
unset NIX_REMOTE NIX_PATH
echo "build-users-group =" >"$home/nix.conf"

mapfile -t files < <(git ls-files --cached --others --exclude-standard -- '*.nix')
for file in "${files[@]}"; do
  nix-instantiate --parse "$file" >/dev/null
done

mkdir "$home/flake"
cp flake.nix flake.lock "$home/flake/"
nix --offline --extra-experimental-features 'nix-command flakes' \
  flake metadata --no-update-lock-file "path:$home/flake" >"$home/metadata" || {
  echo "nix: flake.lock does not fit flake.nix; run: nix flake lock" >&2
  exit 1
}

evaluate() { nix-instantiate --eval --strict --json "$1"; }
pins=$(evaluate ci/flake-lock.nix)
outputs=$(evaluate ci/flake-outputs.nix)
echo "nix $(nix --version | grep -oE '[0-9.]+$'): ${#files[@]} files parse; pins $pins; outputs $outputs (nixpkgs itself not evaluated)"
