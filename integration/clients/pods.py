"""podman again: pods, builds, user namespaces, and containers that make containers or control groups."""

import os

import nested
from harness import *
from podman import IMAGE, begin, clean, command, end, podman, podman_try, sh, start


@scenario
def pods_share_and_end_together():
    podman("pod", "create", "--name", "p", "--share", "net,ipc,uts,pid")
    podman("run", "-d", "--pod", "p", "--name", "one", IMAGE, "sh", "-c", SLEEP)
    podman("run", "-d", "--pod", "p", "--name", "two", IMAGE, "sh", "-c", SLEEP)
    for kind in ["net", "ipc", "uts", "pid"]:
        same(*(podman("exec", c, "readlink", f"/proc/self/ns/{kind}") for c in ["one", "two"]))
    podman("pod", "pause", "p")
    podman("pod", "unpause", "p")
    podman("pod", "restart", "p")
    podman("exec", "two", "true")
    podman("pod", "stop", "-t", "5", "p")
    podman("pod", "rm", "-f", "p")


KUBE = """
apiVersion: v1
kind: Pod
metadata:
  name: k
spec:
  hostname: from-kube
  containers:
  - name: a
    image: docker.io/library/busybox:latest
    command: [sh, -c, "echo $X >/shared/file; sleep 1000"]
    env: [{name: X, value: "of a"}]
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    securityContext: {capabilities: {drop: [NET_RAW]}, allowPrivilegeEscalation: false}
    volumeMounts: [{name: v, mountPath: /shared}]
  - name: b
    image: docker.io/library/busybox:latest
    command: [sleep, "1000"]
    securityContext: {runAsUser: 1000, readOnlyRootFilesystem: true}
    volumeMounts: [{name: v, mountPath: /shared}]
  volumes:
  - name: v
    emptyDir: {}
"""


@scenario
def kube_play():
    with open("/run/pod.yaml", "w") as file:
        file.write(KUBE)
    podman("kube", "play", "/run/pod.yaml")
    until(lambda: podman_try("exec", "k-b", "cat", "/shared/file").out == "of a\n", "the file of a")
    same(podman("exec", "k-b", "sh", "-c", "hostname; id -u").split()[1], "1000")
    same(podman("exec", "k-a", "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes"), str(64 << 20))
    podman("kube", "down", "/run/pod.yaml")


@scenario
def build():
    for isolation in ["oci", "chroot"]:
        podman("build", "-q", "--isolation", isolation, "-t", "made", build_directory())
        same(podman("run", "--rm", "made"), "built-b\n7")
    podman("rmi", "-f", "made")


@scenario
def a_user_namespace_and_idmapped_volumes():
    same(
        sh(
            "cat /proc/self/uid_map | tr -s ' '; id -u", "--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000"
        ).split(),
        ["0", "100000", "1000", "0"],
    )
    os.makedirs("/run/idmap", exist_ok=True)
    sh(
        "touch /v/x; stat -c %u /v",
        "-v",
        "/run/idmap:/v:idmap",
        "--uidmap",
        "0:100000:1000",
        "--gidmap",
        "0:100000:1000",
    )
    same(os.stat("/run/idmap/x").st_uid, 0)


@scenario
def a_user_namespace_with_ids_that_podman_chooses():
    for file in ["/etc/subuid", "/etc/subgid"]:
        with open(file, "a") as ids:
            ids.write("containers:500000:65536\n")
    same(sh("cat /proc/self/uid_map", "--userns", "auto").split(), ["0", "500000", "1024"])


@scenario
def containers_of_an_ordinary_user():
    home, runtime_dir = "/run/home", "/run/user/4321"
    for file, line in [
        ("passwd", f"person:x:4321:4321::{home}:/bin/sh"),
        ("group", "person:x:4321:"),
        ("subuid", "person:300000:65536"),
        ("subgid", "person:300000:65536"),
    ]:
        with open(f"/etc/{file}", "a") as table:
            table.write(line + "\n")
    for directory in [home, runtime_dir]:
        os.makedirs(directory)
        os.chown(directory, 4321, 4321)
    environment = ["env", f"HOME={home}", f"XDG_RUNTIME_DIR={runtime_dir}"]
    person = ["setpriv", "--reuid", "4321", "--regid", "4321", "--clear-groups", *environment, *command()]
    run(*person, "load", "-qi", IMAGES, cwd=home)
    ids = run(*person, "run", "--rm", "--network", "none", IMAGE, "sh", "-c", "id -u; cat /proc/self/uid_map", cwd=home)
    same(ids.split(), ["0", "0", "4321", "1", "1", "300000", "65536"])
    run(*person, "run", "-d", "--name", "box", "--network", "none", IMAGE, "sh", "-c", SLEEP, cwd=home)
    same(run(*person, "exec", "box", "echo", "hi", cwd=home), "hi")
    run(*person, "stop", "-t", "20", "box", cwd=home)
    same(run(*person, "inspect", "-f", "{{.State.ExitCode}}", "box", cwd=home), "7")
    run(*person, "rm", "box", cwd=home)
    run(*person, "system", "migrate", cwd=home)


@scenario
def systemd_always():
    """Control groups of its own, and a tmpfs where systemd wants one."""
    sh("mkdir /sys/fs/cgroup/systemd/x && rmdir /sys/fs/cgroup/systemd/x", "--systemd", "always")
    same(sh("grep -c -E ' /(run|run/lock|tmp) ' /proc/self/mountinfo", "--systemd", "always"), "3")


@scenario
def init_in_a_subgroup_and_then_exec():
    start(
        f"for c in /sys/fs/cgroup/*/; do mkdir -p $c/sub && echo 1 >$c/sub/cgroup.procs; done; echo moved; {SLEEP}",
        "--privileged",
    )
    until(lambda: "moved" in podman("logs", "box"), "moved")
    podman("exec", "box", "true")
    podman("rm", "-f", "-t", "0", "box")


@scenario
def a_container_in_a_container():
    nested.run(sh)


@scenario
def systemd_boots():
    nested.make_systemd_root("/run/systemd-root")
    podman(
        "run",
        "-d",
        "--name",
        "box",
        "--systemd",
        "always",
        "-v",
        "/usr:/usr:ro",
        "--rootfs",
        "/run/systemd-root",
        "/lib/systemd/systemd",
        "--unit=basic.target",
    )
    until(lambda: podman_try("exec", "box", "systemctl", "is-active", "basic.target").out == "active\n", "basic.target")
    same(podman("exec", "box", "systemctl", "--failed", "--no-legend", "--plain"), "")
    podman("stop", "-t", "20", "box")
    same(podman("inspect", "-f", "{{.State.ExitCode}}", "box"), "0")
