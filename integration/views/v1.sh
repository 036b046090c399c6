#!/bin/sh
# Runs "$@" on a pure cgroup v1 host. Start it in a mount namespace of its own:
#   unshare -m v1.sh COMMAND [ARGUMENT]...
# Exit status 77 and one line on standard error: this host cannot show that view.
set -e
top=/sys/fs/cgroup
mount --make-rprivate /
if [ "$(stat -f -c %T $top)" = cgroup2fs ]; then
    echo "this host has no cgroup v1: its controllers belong to cgroup2" >&2
    exit 77
fi
if mountpoint -q $top/unified; then
    new=$(mktemp -d)
    mount -t tmpfs -o mode=755 tmpfs "$new"
    for old in "$top"/*/; do
        name=$(basename "$old")
        if [ "$name" = unified ] || [ -L "${old%/}" ] || ! mountpoint -q "$old"; then
            continue
        fi
        mkdir "$new/$name"
        mount --move "$old" "$new/$name"
    done
    for link in "$top"/*; do
        if [ -L "$link" ]; then cp -P "$link" "$new/"; fi
    done
    umount -R $top
    mount --move "$new" $top
    rmdir "$new"
fi
exec "$@"
