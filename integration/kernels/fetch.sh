#!/usr/bin/env bash
# Fetches Debian kernels into the cache and prints one line for each: NAME PATH-OF-VMLINUZ.
#
#   fetch.sh [VERSION…]     a version is a beginning such as 6.1 or 6.12.43, or `newest`; default: 6.1 6.12 newest
#
# The packages come from the Debian mirror that this machine's apt uses already, through an apt root of its own
# in the cache folder with more releases than the machine has, so nothing of the machine is changed and no root
# is needed. Debian's archive keyring checks them. Point releases vanish from mirrors: what was fetched stays in
# the cache, and where the mirror cannot be reached the newest cached kernel of a version is taken.
set -euo pipefail

releases=(bullseye bullseye-security bookworm bookworm-security bookworm-backports trixie trixie-backports sid)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tapstack/kernels
root=$cache/apt
flavour=cloud-amd64
[ $# -gt 0 ] || set -- 6.1 6.12 newest
say() { echo "kernels: $*" >&2; }
# shellcheck source=ci/debian.sh
. "$(dirname "$0")/../../ci/debian.sh"

# The newest kernel on the mirror whose version begins with $1.
newest() {
  local begin='[0-9]'
  [ "$1" = newest ] || begin="${1//./\\.}[.+-]"
  sed -nE "/rc[0-9]/d; s/^linux-image-($begin.*-$flavour)\$/\1/p" "$root/names" 2>/dev/null | tail -n 1
}

# Puts a kernel into the cache: its image and the modules that the kernel itself would load on a whole system.
fetch() {
  local version=$1 work name package
  [ ! -e "$cache/$version" ] || return 0
  work=$(mktemp -d "$cache/fetch.XXXXXX")
  mkdir "$work/new"
  # From 6.19 on linux-image only refers to linux-binary, which has the image, and linux-modules.
  for name in image binary modules; do
    package=linux-$name-$version
    grep -qxF "$package" "$root/names" || continue
    (cd "$work" && apt apt-get -q download "$package" && dpkg-deb -x "$package"_*.deb tree) >>"$work/log" 2>&1 ||
      say "cannot fetch $package: $(tail -n 1 "$work/log")"
  done
  find "$work/tree" -name 'vmlinuz*' -type f -exec cp {} "$work/new/vmlinuz" \; 2>>"$work/log" || true
  find "$work/tree" \( -name 'inet_diag.ko*' -o -name 'tcp_diag.ko*' \) -exec cp {} "$work/new" \; 2>>"$work/log" || true
  for name in "$work"/new/*.ko.xz; do
    [ ! -e "$name" ] || xz -d "$name"
  done
  # Whole or not at all: another run may look for it.
  if [ -s "$work/new/vmlinuz" ] && mv "$work/new" "$cache/$version"; then
    say "fetched linux $version"
  else
    say "linux $version has no image"
  fi
  rm -rf "$work"
}

# The newest kernel in the cache whose version begins with $1.
cached() {
  local begin=$1
  [ "$1" != newest ] || begin=
  (cd "$cache" && ls -d [0-9]*/vmlinuz 2>/dev/null) | sed 's,/vmlinuz$,,' |
    { if [ -n "$begin" ]; then grep -E "^${begin//./\\.}([.+-]|\$)"; else cat; fi; } | sort -V | tail -n 1
}

mkdir -p "$cache"
update || true
apt apt-cache pkgnames linux- | sort -V >"$root/names" || true
missing=0
for version; do
  name=$(newest "$version" || true)
  [ -z "$name" ] || fetch "$name"
  found=$(cached "$version" || true)
  if [ -n "$found" ]; then
    echo "$found $cache/$found/vmlinuz"
  else
    say "no kernel $version: neither on the mirror nor in $cache"
    missing=1
  fi
done
exit $missing
