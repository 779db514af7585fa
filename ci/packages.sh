#!/usr/bin/env bash
# Installs the Debian packages that the tests use: peers for the traffic, and tools to look at the result.
# Safe to run again; does nothing when all are there.
set -euo pipefail
packages=(build-essential curl wget nginx-light python3 nodejs haproxy iproute2 bpftool llvm nix-bin
  qemu-system-x86 seabios cpio busybox-static util-linux openssl libssl-dev wrk)
missing=()
for p in "${packages[@]}"; do
  # A tool that came another way (nodejs, say) counts too.
  case $p in
    nodejs) command -v node >/dev/null && continue ;;
    python3) command -v python3 >/dev/null && continue ;;
    llvm) command -v llvm-objcopy >/dev/null && continue ;;
  esac
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
if [ ${#missing[@]} = 0 ]; then exit 0; fi
if [ "$(id -u)" != 0 ]; then
  echo "packages: as root, run: apt-get install -y --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# Servers are started by the tests themselves, on their own ports.
printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d.tapstack
chmod 755 /usr/sbin/policy-rc.d.tapstack
[ -e /usr/sbin/policy-rc.d ] || { ln -s policy-rc.d.tapstack /usr/sbin/policy-rc.d; trap 'rm -f /usr/sbin/policy-rc.d /usr/sbin/policy-rc.d.tapstack' EXIT; }
apt-get install -q -y --no-install-recommends "${missing[@]}"
