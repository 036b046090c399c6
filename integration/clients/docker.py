"""docker and dockerd, which drive the runtime through containerd's shim."""

import json
import os

import nested
from harness import *

IMAGE = "busybox"


# Not another one that the machine may have.
DOCKER = "/usr/bin/docker"
containerd = Daemon("containerd")
dockerd = Daemon("dockerd", "--containerd", "/run/containerd/containerd.sock")


def begin(change=lambda text: text):
    configure("/etc/docker/daemon.json", change)
    containerd.start(ready=["ctr", "version"])
    dockerd.start(ready=[DOCKER, "version"])
    docker("load", "-i", IMAGES)


def end():
    dockerd.stop()
    containerd.stop()


def docker(*args, **options):
    return run(DOCKER, *args, **options)


def docker_try(*args, **options):
    return attempt(DOCKER, *args, **options)


def clean():
    ids = docker("ps", "-aq").split()
    if ids:
        docker("rm", "-fv", *ids)


def sh(script, *options, **more):
    return docker("run", "--rm", *options, IMAGE, "sh", "-c", script, **more)


def start(script, *options, name="box"):
    docker("run", "-d", "--name", name, *options, IMAGE, "sh", "-c", script)


def inspect(field, name="box"):
    return docker("inspect", "-f", "{{%s}}" % field, name)


@scenario
def a_program_s_status_is_docker_s():
    same(sh("echo out; echo err >&2"), "out")
    sh("exit 3", status=3)
    docker("run", "--rm", IMAGE, "/missing", status=127)
    docker("run", "--rm", IMAGE, "missing", status=127)
    docker("run", "--rm", IMAGE, "/etc", status=126)
    docker("run", "--rm", IMAGE, "/etc/passwd", status=126)
    docker("run", "--rm", "-i", IMAGE, "sh", "-c", "cat; exit 4", stdin="in", status=4)


@scenario
def a_terminal_follows_its_size():
    line = [DOCKER, "run", "--rm", "-it", IMAGE, "sh", "-c", WAIT_FOR_SIZES]
    same(at_terminal(*line, size=SIZES[0], lines=[("is 30", SIZES[1])])[0], 5)


@scenario
def exec_enters_with_user_environment_directory_and_terminal():
    start(SLEEP)
    same(docker("exec", "box", "echo", "hi"), "hi")
    docker("exec", "box", "sh", "-c", "exit 6", status=6)
    docker("exec", "box", "missing", status=126)
    docker("exec", "box", "/etc", status=126)
    same(
        docker("exec", "-u", "1000:2000", "-w", "/tmp", "-e", "X=y", "box", "sh", "-c", "id -u; id -g; pwd; echo $X"),
        "1000\n2000\n/tmp\ny",
    )
    same(docker("exec", "-i", "box", "cat", stdin="through"), "through")
    expect(
        int(docker("exec", "--privileged", "box", "sh", "-c", "grep CapEff /proc/self/status | cut -f2"), 16) >> 21 & 1
    )
    status, shown = at_terminal(DOCKER, "exec", "-it", "box", "sh", lines=[("# ", "tty; exit 9\n")])
    same(status, 9)
    expect("/dev/pts/" in shown, shown)
    docker("exec", "-d", "box", "touch", "/tmp/detached")
    until(lambda: docker_try("exec", "box", "test", "-e", "/tmp/detached").status == 0, "/tmp/detached")


@scenario
def pause_unpause_stop_and_kill():
    start(SLEEP)
    docker("pause", "box")
    same(inspect(".State.Status"), "paused")
    expect(docker_try("exec", "box", "true").status != 0)
    docker("unpause", "box")
    docker("exec", "box", "true")
    docker("stop", "-t", "20", "box")
    same(inspect(".State.ExitCode"), "7")
    docker("start", "box")
    docker("kill", "-s", "TERM", "box")
    same(docker("wait", "box"), "7")
    docker("start", "box")
    docker("kill", "box")
    same(docker("wait", "box"), "137")
    docker("start", "box")
    docker("restart", "-t", "20", "box")
    docker("pause", "box")
    docker("rm", "-f", "box")


@scenario
def a_restart_policy_starts_again():
    start("echo run; exit 1", "--restart", "on-failure:3")
    until(lambda: docker("logs", "box").split() == ["run"] * 4, "four runs")


@scenario
def logs_top_and_stats():
    start(f"echo out; echo err >&2; {SLEEP}")
    until(lambda: docker("logs", "box") == "out", "logs")
    expect("sleep" in docker("top", "box"), docker("top", "box"))
    expect("sleep" in docker("top", "box", "-eo", "pid,args"))
    stats = json.loads(docker("stats", "--no-stream", "--format", "{{json .}}", "box"))
    expect(int(stats["PIDs"]) >= 1 and not stats["MemUsage"].startswith("0B"), stats)


@scenario
def update_changes_only_what_it_names():
    start(SLEEP, "--memory", "64m", "--cpus", "1", "--pids-limit", "100")
    look = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max"
    docker("update", "--cpus", "0.5", "box")
    same(docker("exec", "box", "sh", "-c", look).split(), [str(64 << 20), "50000", "100"])
    docker("update", "--memory", "96m", "--memory-swap", "96m", "--pids-limit", "50", "box")
    same(docker("exec", "box", "sh", "-c", look).split(), [str(96 << 20), "50000", "50"])
    docker("update", "--restart", "no", "box")


@scenario
def memory_beyond_the_limit_is_an_oom_kill():
    start("tail /dev/zero", "--memory", "16m", "--memory-swap", "16m")
    same(docker("wait", "box"), "137")
    until(lambda: inspect(".State.OOMKilled") == "true", "OOMKilled")


@scenario
def limits_are_what_the_kernel_has():
    limits(sh)


@scenario
def read_only_users_capabilities_and_filters():
    sh("touch /x", "--read-only", status=1)
    same(sh("id -u; id -g; id -G", "--user", "12:34", "--group-add", "56").split(), ["12", "34", "34", "56"])
    caps = "grep CapEff /proc/self/status | cut -f2"
    same(sh(caps, "--cap-drop", "all"), "0" * 16)
    same(int(sh(caps, "--cap-drop", "all", "--cap-add", "net_admin"), 16), 1 << 12)
    same(sh("grep Seccomp: /proc/self/status | cut -f2"), "2")
    same(sh("grep Seccomp: /proc/self/status | cut -f2", "--security-opt", "seccomp=unconfined"), "0")
    sh("unshare -m true", status=1)
    same(sh("grep NoNewPrivs: /proc/self/status | cut -f2", "--security-opt", "no-new-privileges"), "1")
    sh("mount -t tmpfs t /mnt || mount -t tmpfs t /tmp", "--privileged")


@scenario
def devices():
    docker(
        "run",
        "--rm",
        "--device",
        "/dev/zero:/dev/zap:r",
        IMAGE,
        "sh",
        "-c",
        "test $(stat -c %t:%T /dev/zap) = 1:5; head -c 2 /dev/zap",
    )
    sh("mknod /tmp/k c 10 229 && head -c 1 /tmp/k", status=1)
    sh("mknod /tmp/k c 10 229 && : </tmp/k", "--device-cgroup-rule", "c 10:229 r")
    sh(": </dev/fuse", "--device", "/dev/fuse:/dev/fuse:r")
    sh(": >/dev/fuse", "--device", "/dev/fuse:/dev/fuse:r", status=1)


@scenario
def volumes_with_their_propagation():
    os.makedirs("/run/vol", exist_ok=True)
    run("mount", "-t", "tmpfs", "vol", "/run/vol")
    run("mount", "--make-shared", "/run/vol")
    os.makedirs("/run/vol/sub")
    try:
        for how, seen in [("rslave", 1), ("rprivate", 0), ("rshared", 1)]:
            start(SLEEP, "-v", f"/run/vol:/vol:{how}")
            run("mount", "-t", "tmpfs", "later", "/run/vol/sub")
            same(docker("exec", "box", "sh", "-c", "grep -c /vol/sub /proc/self/mountinfo || :"), str(seen))
            run("umount", "/run/vol/sub")
            docker("rm", "-f", "box")
        sh("echo x >/vol/x", "-v", "/run/vol:/vol:ro", status=1)
        sh("echo x >/vol/x", "-v", "/run/vol:/vol")
        same(open("/run/vol/x").read(), "x\n")
    finally:
        attempt("umount", "-R", "/run/vol")
    sh("echo kept >/named/x", "-v", "named:/named")
    same(sh("cat /named/x", "-v", "named:/named"), "kept")
    same(
        sh(
            "mount | grep ' /t ' | grep -c noexec; df -k /t | tail -1 | awk '{print $2}'",
            "--tmpfs",
            "/t:size=1m,noexec",
        ),
        "1\n1024",
    )
    same(sh("df -k /dev/shm | tail -1 | awk '{print $2}'", "--shm-size", "2m"), "2048")


@scenario
def namespaces_of_the_host_and_of_another_container():
    for kind, option in [
        ("pid", "--pid"),
        ("net", "--net"),
        ("ipc", "--ipc"),
        ("uts", "--uts"),
        ("cgroup", "--cgroupns"),
    ]:
        same(sh(f"readlink /proc/self/ns/{kind}", option, "host"), os.readlink(f"/proc/self/ns/{kind}"))
    expect(sh("readlink /proc/self/ns/cgroup", "--cgroupns", "private") != os.readlink("/proc/self/ns/cgroup"))
    start(SLEEP, "--ipc", "shareable")
    for kind, option in [("pid", "--pid"), ("net", "--net"), ("ipc", "--ipc")]:
        same(
            sh(f"readlink /proc/self/ns/{kind}", option, "container:box"),
            docker("exec", "box", "readlink", f"/proc/self/ns/{kind}"),
        )
    start("sleep 1001", "--pid", "container:box", name="second")
    expect("sleep 1001" in docker("exec", "box", "ps"))
    docker("rm", "-f", "second")
    expect("sleep 1001" not in docker("exec", "box", "ps"))
    start("sleep 1002 & sleep 1003", "--pid", "host", name="third")
    docker("rm", "-f", "third")
    expect("sleep 100" not in run("ps", "-e", "-o", "args"))


@scenario
def init_reaps():
    start("sleep 0.1 & exec sleep 1000", "--init")
    expect("init" in docker("exec", "box", "cat", "/proc/1/cmdline"))
    docker("stop", "-t", "5", "box")


@scenario
def a_healthcheck_runs():
    start(SLEEP, "--health-cmd", "test -e /tmp/well", "--health-interval", "200ms", "--health-retries", "1")
    until(lambda: inspect(".State.Health.Status") == "unhealthy", "unhealthy")
    docker("exec", "box", "touch", "/tmp/well")
    until(lambda: inspect(".State.Health.Status") == "healthy", "healthy")


@scenario
def odds_and_ends_of_the_command_line():
    same(
        sh(
            "hostname; cat /proc/sys/net/ipv4/ip_forward; pwd; echo $A; ulimit -n; cat /proc/sys/kernel/shmmni",
            "--hostname",
            "h",
            "--sysctl",
            "net.ipv4.ip_forward=1",
            "-w",
            "/made/up",
            "-e",
            "A=b",
            "--ulimit",
            "nofile=100:100",
            "--sysctl",
            "kernel.shmmni=99",
        ).split(),
        ["h", "1", "/made/up", "b", "100", "99"],
    )
    same(sh("ip link show lo | grep -c LOWER_UP", "--network", "none"), "1")
    sh("true", "--oom-score-adj", "500")
    sh("true", "--security-opt", "systempaths=unconfined")
    sh("grep -q my-parent /proc/self/cgroup", "--cgroup-parent", "/my-parent", "--cgroupns", "host")


@scenario
def copy_commit_export_attach():
    start(SLEEP)
    with open("/run/file", "w") as file:
        file.write("copied")
    docker("cp", "/run/file", "box:/tmp/file")
    same(docker("exec", "box", "cat", "/tmp/file"), "copied")
    docker("commit", "box", "committed")
    same(docker("run", "--rm", "committed", "cat", "/tmp/file"), "copied")
    docker("rmi", "committed")
    docker("create", "-i", "--name", "cat", IMAGE, "cat")
    same(docker("start", "-ai", "cat", stdin="attached"), "attached")


@scenario
def build():
    """With BuildKit, which takes runc, and without."""
    for kit in ["0", "1"]:
        docker("build", "-q", "-t", "made", build_directory(), env={**os.environ, "DOCKER_BUILDKIT": kit})
        same(docker("run", "--rm", "made"), "built-b\n7")
    docker("rmi", "-f", "made")


@scenario
def published_ports():
    start("echo answer | nc -l -p 80; sleep 1000", "-p", "127.0.0.1:8080:80")
    until(
        lambda: attempt("busybox", "nc", "-w", "2", "127.0.0.1", "8080", stdin="").out.strip() == "answer", "an answer"
    )


@scenario
def names_on_a_network():
    docker("network", "create", "net1")
    start("sleep 1000", "--network", "net1")
    sh("ping -c 1 box", "--network", "net1")
    docker("rm", "-f", "box")
    docker("network", "rm", "net1")


@scenario
def twenty_at_once():
    twenty(lambda number: sh(f"echo {number}"))


@scenario
def a_container_in_a_container():
    nested.run(sh)


@scenario
def the_daemon_is_killed_and_recovers():
    start(SLEEP)
    dockerd.kill()
    os.remove("/run/docker.pid")
    dockerd.start(ready=[DOCKER, "version"])
    docker("start", "box")
    docker("exec", "box", "true")
    docker("stop", "-t", "20", "box")
    same(inspect(".State.ExitCode"), "7")
