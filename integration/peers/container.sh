#!/bin/sh
# A container as far as files go: a root of its own, by overlayfs over a folder that others use too.
# `unshare -m container.sh IMAGE EMPTY-FOLDER` says `ready` and then waits inside; nothing is left when it is killed.
set -eu
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
echo ready
exec chroot "$2/root" /bin/busybox sleep 100000
