#!/usr/bin/env bash
# Makes a recording of real traffic for tests/recordings: boots a kernel with nothing but nginx, curl and
# `tapstack agent --record` in it, so that nothing of this machine is in the file.
#
#   record.sh BINARY OUTPUT [VERSION]      version as for fetch.sh; default: newest
#
# What is asked and answered stands in guest/record.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 2 ] || { sed -n '2,6p' "$0" >&2; exit 2; }
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
KERNEL_LOGS=$logs KERNEL_APPEND=tapstack.record "$here/run.sh" "$1" "${3:-newest}"
sed -n '/^RECORDING$/,/^RECORDED$/p' "$logs"/*.log | sed '1d;$d' | base64 -d >"$2"
ls -l "$2"
