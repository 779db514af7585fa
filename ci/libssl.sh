#!/usr/bin/env bash
# Fetches the OpenSSL packages of other Debian releases into the cache, for the tests of agent/src/library, and
# prints one line for each: NAME FOLDER.
#
#   libssl.sh [RELEASE…]     default: bullseye (1.1.1), trixie (3.5, built with -fcf-protection), sid
#
# FOLDER is an unpacked tree with libssl, the openssl command, and the C library it was built for:
#
#   lib=$FOLDER/usr/lib/x86_64-linux-gnu:$FOLDER/lib/x86_64-linux-gnu
#   "$FOLDER/loader" --library-path "$lib" "$FOLDER/usr/bin/openssl" version
#
# The packages come from the Debian mirror that this machine's apt uses already, through an apt root of its own
# in the cache folder, so nothing of the machine is changed and no root is needed. Debian's archive keyring checks
# them. What was fetched stays until the mirror has a newer version; where it cannot be reached, the cached tree
# serves.
set -euo pipefail

releases=(bullseye bullseye-security trixie trixie-security sid)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tapstack/libssl
root=$cache/apt
[ $# -gt 0 ] || set -- bullseye trixie sid
say() { echo "libssl: $*" >&2; }
# shellcheck source=ci/debian.sh
. "$(dirname "$0")/debian.sh"

# The versions of package $1 in release $2 and its security archive, newest first.
versions() {
  apt apt-cache madison "$1" 2>/dev/null | awk -F' *[|] *' -v release="$2" '
    { split($3, part, " "); split(part[2], suite, "/"); if (suite[1] == release || suite[1] == release "-security") print $2 }'
}

# Puts the tree of release $1 into the cache, unless the one there is what the mirror has.
fetch() {
  local release=$1 work package version libssl all=()
  libssl=libssl3t64
  [ "$release" != bullseye ] || libssl=libssl1.1
  # libz and libzstd: what libcrypto itself needs, from 3.2 on.
  for package in "$libssl" openssl libc6 zlib1g libzstd1; do
    version=$(versions "$package" "$release" | head -n 1)
    [ -n "$version" ] || { say "no $package in $release on the mirror"; return 1; }
    all+=("$package=$version")
  done
  [ "$(cat "$cache/$release/packages" 2>/dev/null)" != "${all[*]}" ] || return 0
  work=$(mktemp -d "$cache/fetch.XXXXXX")
  if (cd "$work" && apt apt-get -q download "${all[@]}" && mkdir tree && for package in *.deb; do dpkg-deb -x "$package" tree; done) >"$work/log" 2>&1; then
    echo "${all[*]}" >"$work/tree/packages"
    ln -s "$(cd "$work/tree" && find . -type f '(' -name ld-linux-x86-64.so.2 -o -name 'ld-2.*.so' ')' | head -n 1)" "$work/tree/loader"
    # Whole or not at all: another run may look for it.
    if [ -e "$cache/$release" ]; then mv "$cache/$release" "$work/old"; fi
    mv "$work/tree" "$cache/$release"
    say "fetched $release: ${all[*]}"
  else
    say "cannot fetch ${all[*]}: $(tail -n 1 "$work/log")"
  fi
  rm -rf "$work"
}

mkdir -p "$cache"
update || true
missing=0
for release; do
  fetch "$release" || true
  if [ -e "$cache/$release" ]; then
    echo "$release $cache/$release"
  else
    say "no OpenSSL of $release: neither on the mirror nor in $cache"
    missing=1
  fi
done
exit $missing
