#!/bin/sh
# Runs "$@" on a pure cgroup v2 host. Start it in a mount namespace of its own:
#   unshare -m v2.sh COMMAND [ARGUMENT]...
# Controllers that v1 hierarchies of the real host have taken are absent from it.
# Exit status 77 and one line on standard error: this host cannot show that view.
set -e
top=/sys/fs/cgroup
mount --make-rprivate /
if [ "$(stat -f -c %T $top)" != cgroup2fs ]; then
    umount -R $top
    if ! mount -t cgroup2 cgroup2 $top 2>/dev/null; then
        echo "this host has no cgroup v2: the kernel refuses to mount it" >&2
        exit 77
    fi
fi
exec "$@"
