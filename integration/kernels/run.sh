#!/usr/bin/env bash
# Boots Debian kernels in qemu and lets the real `tapstack` capture curl and nginx in each, in cleartext and in TLS.
#
#   run.sh BINARY [VERSION…]      versions as for fetch.sh; default: 6.1 6.12 newest
#
# Prints one line a kernel, and the log of each that failed; the last line is `N passed, N failed`, and the exit
# status is 0 only if all passed. What is checked inside stands in guest/init. Needs qemu-system-x86, seabios,
# busybox-static, cpio, xz-utils, curl, nginx and openssl (Debian's names); root is only needed to install them.
#
# KERNEL_TIMEOUT: seconds for one kernel, 600 by default. KERNEL_LOGS: a folder that keeps every console.
# KERNEL_APPEND: more words for the kernel's command line (record.sh). NAME=VALUE becomes the guest's environment: with
# TAPSTACK_LOG=debug a failure's console says more. KERNEL_ACCEL=kvm: the machine's own virtualisation instead of emulation.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
binary=$(realpath -e "$1")
shift

need=()
for pair in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio xz:xz-utils curl:curl nginx:nginx openssl:openssl; do
  PATH=$PATH:/usr/sbin command -v "${pair%%:*}" >/dev/null || need+=("${pair##*:}")
done
[ -e /usr/share/seabios/bios-256k.bin ] || need+=(seabios)
if [ ${#need[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "kernels: run once as root to install: ${need[*]}" >&2
    exit 1
  fi
  apt-get update >/dev/null
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${need[@]}" >/dev/null
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
logs=${KERNEL_LOGS:-$work}
mkdir -p "$logs"
"$here/initramfs.sh" "$binary" "$work/initrd"

# Emulation runs anywhere. KVM is much faster, but only by request: nested in some virtual machines it is there
# and stops the guest at its first odd instruction.
accel=(-accel "tcg,thread=multi" -cpu max)
[ "${KERNEL_ACCEL:-tcg}" != kvm ] || accel=(-accel kvm -cpu host)

# The modules of one kernel, as an archive with the folder `modules`.
modules() {
  rm -rf "$work/tree"
  mkdir -p "$work/tree/modules"
  cp "$1"/*.ko "$work/tree/modules" 2>/dev/null || true # built in
  (cd "$work/tree" && find modules | cpio -o -H newc --quiet)
}

passed=0 failed=0
# A version that cannot be had is a failure, not a kernel less.
wanted=$#
[ "$wanted" -gt 0 ] || wanted=3
"$here/fetch.sh" "$@" >"$work/kernels" || true
while read -r name image; do
  log=$logs/$name.log
  # Archives behind one another are unpacked one after the other.
  modules "$(dirname "$image")" | cat "$work/initrd" - >"$work/initrd.all"
  started=$(date +%s%N)
  timeout "${KERNEL_TIMEOUT:-600}" qemu-system-x86_64 "${accel[@]}" -smp 2 -m 1G -nographic -no-reboot -nic none \
    -kernel "$image" -initrd "$work/initrd.all" -append "console=ttyS0 quiet panic=-1 mitigations=off ${KERNEL_APPEND:-}" \
    </dev/null >"$log.raw" 2>&1 && status=0 || status=$?
  # Without carriage returns and without what the firmware draws with.
  tr -d '\r' <"$log.raw" | sed 's/\x1b[c[]*[?0-9;]*[a-zA-Z]//g' >"$log"
  rm "$log.raw"
  took=$((($(date +%s%N) - started) / 100000000))
  took=${took%?}.${took: -1}
  verdict=$(sed -n 's/^VERDICT //p' "$log" | tail -n 1)
  if [ "${verdict%% *}" = ok ]; then
    passed=$((passed + 1))
    echo "kernel ${name%-cloud-*}: $verdict, $took s"
  else
    failed=$((failed + 1))
    [ "$status" != 124 ] || verdict="not done after ${KERNEL_TIMEOUT:-600} s"
    echo "kernel ${name%-cloud-*}: ${verdict:-no verdict}, $took s; its console:"
    tail -n 200 "$log" | sed 's/^/  | /'
  fi
done <"$work/kernels"
failed=$((failed + wanted - passed - failed))
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
