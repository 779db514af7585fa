#!/usr/bin/env bash
# Packs what a kernel needs to run the capture test: busybox, curl and nginx of this machine, the given binary,
# each with its libraries (where this machine has them, so libssl lies in a folder of the loader), guest/, and a
# certificate made for this one image.
#
#   initramfs.sh BINARY OUTPUT
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
binary=$1 output=$2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# Copies a program to a place, and its libraries to theirs.
add() {
  mkdir -p "$root/$(dirname "$2")"
  cp -L "$1" "$root/$2"
  local library
  for library in $(ldd "$1" 2>/dev/null | grep -oE '/[^ ]+'); do
    [ -e "$root/$library" ] || { mkdir -p "$root/$(dirname "$library")"; cp -L "$library" "$root/$library"; }
  done
}

mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,etc/nginx,proc,sys,dev,tmp,run,root,www,var/log/nginx,var/lib/nginx}
add "$(command -v busybox)" bin/busybox
for applet in $("$root/bin/busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
add "$(command -v curl)" usr/bin/curl
add "$(PATH=$PATH:/usr/sbin command -v nginx)" usr/sbin/nginx
add "$binary" usr/bin/tapstack
strip "$root/usr/bin/tapstack" 2>/dev/null || true # smaller; a stand-in may be a script

cp "$here/guest/init" "$root/init"
cp "$here/guest/record" "$root/record"
cp "$here/guest/nginx.conf" "$root/etc/nginx/nginx.conf"
chmod +x "$root/init"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
# Nobody checks it: the key is no secret and ends with the image.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=guest.test \
  -keyout "$root/etc/nginx/key.pem" -out "$root/etc/nginx/certificate.pem" 2>"$root/tmp/openssl" ||
  { cat "$root/tmp/openssl" >&2; exit 1; }
rm "$root/tmp/openssl"
# Bytes that cannot be found by chance, and that no coding makes shorter.
for size in 1024 65536 1048576; do
  head -c "$size" /dev/urandom >"$root/www/f$size"
done
(cd "$root" && find . | cpio -o -H newc --quiet) >"$output"
