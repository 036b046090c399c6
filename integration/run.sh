#!/bin/sh
# Runs a test program, and fails also if a control group of its tests is left when all have ended:
# their names have its process id in them, or are those of slices, which systemd keeps until it is told.
"$@" &
pid=$!
trap 'kill $pid' INT TERM
wait $pid
status=$?
systemctl stop rttest.slice 2>/dev/null
left=$(find /sys/fs/cgroup -type d \( -name "*rt-test-$pid-*" -o -name "rttest*.slice" \) 2>/dev/null)
if [ -n "$left" ]; then
    printf 'control groups left behind:\n%s\n' "$left" >&2
    exit 1
fi
exit $status
