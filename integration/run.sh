#!/bin/sh
# Runs a test program, and fails also if a control group of its tests is left when all have ended:
# their names have its process id in them.
"$@" &
pid=$!
trap 'kill $pid' INT TERM
wait $pid
status=$?
left=$(find /sys/fs/cgroup -type d -name "*rt-test-$pid-*" 2>/dev/null)
if [ -n "$left" ]; then
    printf 'control groups left behind:\n%s\n' "$left" >&2
    exit 1
fi
exit $status
