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

# The address of Debian's main archive ($1 = Debian) or of its security archive ($1 = Debian-Security).
mirror() {
  local found
  # shellcheck disable=SC2016 # apt's own variables
  found=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' 'Origin: Debian' "Label: $1" 2>/dev/null | head -n 1)
  if [ -z "$found" ]; then # before the machine's first apt-get update
    local end='debian/*$'
    [ "$1" = Debian ] || end='debian-security/*$'
    found=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^ *#' |
      grep -oE '(https?|file)://[^ ]+' | grep -E "$end" | head -n 1)
  fi
  echo "$found"
}

apt() {
  local tool=$1
  shift
  "$tool" -o Dir="$root" -o Dir::State="$root/state" -o Dir::Cache="$root/cache" -o Dir::Etc="$root/etc" \
    -o Dir::State::status="$root/status" -o APT::Architecture=amd64 -o APT::Architectures::=amd64 \
    -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User= "$@"
}

update() {
  # Once a day is enough; old lists still name what the mirror had.
  [ -z "$(find "$root/updated" -mtime -1 2>/dev/null)" ] || return 0
  local main security release address
  main=$(mirror Debian) security=$(mirror Debian-Security)
  [ -n "$main" ] || { say "no Debian mirror in this machine's apt sources"; return 1; }
  mkdir -p "$root"/{state/lists/partial,cache/archives/partial,etc/apt.conf.d,etc/preferences.d}
  : >"$root/status"
  for release in "${releases[@]}"; do
    address=$main
    [[ $release != *-security ]] || address=${security:-${main%/}-security}
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $address $release main"
  done >"$root/etc/sources.list"
  # A mirror need not have all of them, and an old keyring not know the newest: what can be had is used.
  apt apt-get -q update >"$root/update.log" 2>&1 || say "some releases could not be read, see $root/update.log"
  apt apt-cache pkgnames linux- | sort -V >"$root/names"
  if [ -s "$root/names" ]; then touch "$root/updated"; fi
}

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
