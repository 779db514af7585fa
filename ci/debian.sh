# shellcheck shell=bash
# An apt root of its own, with more Debian releases than the machine has: nothing of the machine is changed, and no
# root is needed. Debian's archive keyring checks what comes. To be sourced, with these set: `root`, its folder;
# `releases`, an array such as (bookworm bookworm-security sid); and a function `say` for what people should know.
#
#   apt TOOL ARGUMENTS…   runs apt-get or apt-cache in it
#   update                reads the mirror's lists, once a day

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
  if [ -n "$(find "$root/state/lists" -name '*_Packages*' -print -quit)" ]; then touch "$root/updated"; fi
}
