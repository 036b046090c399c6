"""What a client and its runtime leave behind: control groups, mounts, processes, state."""

import glob
import os
import time

# Of the clients' own, which they never remove; they have to be empty.
PARENTS = {"docker", "buildkit", "default", "k8s.io", "libpod_parent", "conmon", "my-parent"}
# Mounts that the clients keep for themselves.
OWN_MOUNTS = ("/var/lib/containers/storage/overlay", "/run/netns", "/run/docker/netns/default")
STATE = ["/run/rt/*", "/run/user/*/rt/*", "/run/runc/*", "/run/containerd/runc/*/*", "/run/docker/runtime-runc/*/*"]


def groups():
    """Every control group but those of rt's own tests, which may run at the same time."""
    return {path for path, _, _ in os.walk("/sys/fs/cgroup") if "/rt-test-" not in path}


def mounts():
    with open("/proc/self/mountinfo") as table:
        return {line.split()[4] for line in table}


def processes():
    """The command lines of all processes of this pid namespace."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline") as file:
                found[pid] = file.read().replace("\0", " ").strip()
        except OSError:
            pass
    return found


class Leftovers:
    """What was there before."""

    def __init__(self):
        self.groups, self.mounts, self.processes = groups(), mounts(), processes()

    def left_behind(self):
        """Waits for what is just going; a line for each thing that stays."""
        end = time.monotonic() + 10
        while (left := self.now()) and time.monotonic() < end:
            time.sleep(0.1)
        return left

    def now(self):
        new = groups() - self.groups
        for path in sorted(new, reverse=True):
            if os.path.basename(path) in PARENTS:
                try:
                    os.rmdir(path)
                    new.discard(path)
                except OSError:
                    pass
        left = [f"cgroup {path}" for path in new]
        left += [f"mount {path}" for path in mounts() - self.mounts if path not in OWN_MOUNTS]
        left += [f"process {pid} {line}" for pid, line in processes().items() if pid not in self.processes]
        left += [f"state {path}" for pattern in STATE for path in glob.glob(pattern)]
        return sorted(left)
