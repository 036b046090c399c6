"""What runs in containers that run containers."""

import os
import shutil

from harness import rt, same

# In a busybox with the runtime as /bin/rt and a /run that programs can be executed in.
SCRIPT = """set -e
mkdir -p /run/bundle/rootfs /run/state
cd /run/bundle
mkdir rootfs/proc rootfs/dev rootfs/sys
cp -a /bin rootfs/
rt --root /run/state spec
sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"echo", "inner"/' config.json
rt --root /run/state run inner
"""


def run(sh):
    """In containers of `sh`, whatever they see of control groups."""
    for cgroups in ["private", "host"]:
        same(
            sh(
                SCRIPT, "--privileged", "--cgroupns", cgroups, "--tmpfs", "/run:exec", "-v", f"{rt()}:/bin/rt:ro"
            ),
            "inner",
        )


def make_systemd_root(root):
    """A root file system for the host's own systemd, with the host's /usr to be mounted at /usr."""
    for directory in ["usr", "etc", "var/log", "tmp", "run", "proc", "sys", "dev", "root"]:
        os.makedirs(f"{root}/{directory}", exist_ok=True)
    for link in ["bin", "sbin", "lib", "lib64"]:
        if not os.path.lexists(f"{root}/{link}"):
            os.symlink(f"usr/{link}", f"{root}/{link}")
    for file in ["passwd", "group", "os-release"]:
        shutil.copy(f"/etc/{file}", f"{root}/etc/{file}")
    open(f"{root}/etc/machine-id", "w").close()
