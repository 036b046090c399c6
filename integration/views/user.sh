#!/bin/sh
# Runs a command as the ordinary user 65533, who has the subordinate ids 200000 to 265535. To be started
# by unshare -m: the files of this machine do not change, others are mounted over them.
set -e
for file in passwd subuid subgid; do
    test -e /etc/$file || { echo "/etc/$file: missing (Debian's package passwd)" >&2; exit 1; }
done
command -v newuidmap >/dev/null || { echo "newuidmap: missing (Debian's package uidmap)" >&2; exit 1; }
mount -t tmpfs -o mode=755 tmpfs /mnt
cp /etc/passwd /mnt/passwd
echo 'rt-test:x:65533:65533::/:/bin/sh' >>/mnt/passwd
echo 'rt-test:200000:65536' | tee /mnt/subuid >/mnt/subgid
for file in passwd subuid subgid; do
    mount --bind /mnt/$file /etc/$file
done
umount -l /mnt
exec setpriv --reuid=65533 --regid=65533 --clear-groups -- "$@"
