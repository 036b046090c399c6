#!/bin/sh
# RT=RUNTIME world.sh COMMAND [ARGUMENT]...: runs COMMAND where daemons may do as they like: namespaces of its own, and
# /run, /etc and /var as nobody else sees them. With COMMAND everything in it ends.
set -eu

if [ "${IN_WORLD:-}" != 1 ]; then
    export IN_WORLD=1
    exec unshare --mount --net --pid --ipc --uts --fork --kill-child --mount-proc --propagation private "$0" "$@"
fi

# Overlay file systems do not stack on each other: what the clients store is on a tmpfs itself.
aside=$(mktemp -d)
mount -t tmpfs -o mode=755 world "$aside"
for dir in etc var; do
    mkdir "$aside/$dir" "$aside/$dir.work"
    mount -t overlay -o "lowerdir=/$dir,upperdir=$aside/$dir,workdir=$aside/$dir.work" world "/$dir"
done
umount -l "$aside"
rmdir "$aside"
for dir in docker containerd containers cni; do
    mkdir -p "/var/lib/$dir"
    mount -t tmpfs -o mode=755 world "/var/lib/$dir"
done
mount -t tmpfs -o mode=755 world /run
mkdir -m 1777 /run/tmp /run/lock
mkdir /run/netns
export TMPDIR=/run/tmp XDG_RUNTIME_DIR=
# Where an ordinary user can reach it.
install -D "$RT" "/run/bin/$(basename "$RT")"
RT=/run/bin/$(basename "$RT")
export RT
ip link set lo up

# Not exec: the first process of a pid namespace has to reap what daemons leave to it.
status=0
"$@" || status=$?
exit $status
