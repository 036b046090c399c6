"""podman and conmon."""

import json
import os
import subprocess

from harness import *

IMAGE = "busybox"


def begin():
    configure("/etc/containers/containers.conf.d/rt.conf")
    podman("load", "-q", "-i", IMAGES)


def end():
    """There is no daemon."""


def command():
    """As the configuration has it, unless the machine is asked about."""
    return ["podman", "--runtime", "rt" if rt() == RT else rt()]


def podman(*args, **options):
    return run(*command(), *args, **options)


def podman_try(*args, **options):
    return attempt(*command(), *args, **options)


def clean():
    podman("pod", "rm", "-af", "-t", "0")
    podman("rm", "-af", "-t", "0")
    podman("volume", "prune", "-f")


def sh(script, *options, **more):
    """A container that runs a script; its output."""
    return podman("run", "--rm", *options, IMAGE, "sh", "-c", script, **more)


def start(script, *options, name="box"):
    podman("run", "-d", "--name", name, *options, IMAGE, "sh", "-c", script)
    return name


@scenario
def a_program_s_status_is_podman_s():
    same(sh("echo out; echo err >&2"), "out")
    sh("exit 3", status=3)
    podman("run", "--rm", IMAGE, "/missing", status=127)
    podman("run", "--rm", IMAGE, "missing", status=127)
    podman("run", "--rm", IMAGE, "/etc", status=126)
    podman("run", "--rm", IMAGE, "/etc/passwd", status=126)
    podman("run", "--rm", "-i", IMAGE, "sh", "-c", "cat; exit 4", stdin="in", status=4)


@scenario
def a_terminal_follows_its_size():
    line = [*command(), "run", "--rm", "-it", IMAGE, "sh", "-c", WAIT_FOR_SIZES]
    same(at_terminal(*line, size=SIZES[0], lines=[("is 30", SIZES[1])])[0], 5)


@scenario
def exec_enters_with_user_environment_directory_and_terminal():
    start(SLEEP)
    same(podman("exec", "box", "echo", "hi"), "hi")
    podman("exec", "box", "sh", "-c", "exit 6", status=6)
    podman("exec", "box", "missing", status=127)
    podman("exec", "box", "/etc", status=126)
    same(
        podman("exec", "-u", "1000:2000", "-w", "/tmp", "-e", "X=y", "box", "sh", "-c", "id -u; id -g; pwd; echo $X"),
        "1000\n2000\n/tmp\ny",
    )
    same(podman("exec", "-i", "box", "cat", stdin="through"), "through")
    status, shown = at_terminal("podman", "exec", "-it", "box", "sh", lines=[("# ", "tty; exit 9\n")])
    same(status, 9)
    expect("/dev/pts/" in shown, shown)
    podman("exec", "-d", "box", "touch", "/tmp/detached")
    until(lambda: podman_try("exec", "box", "test", "-e", "/tmp/detached").status == 0, "/tmp/detached")


@scenario
def pause_unpause_stop_and_kill():
    start(SLEEP)
    podman("pause", "box")
    same(podman("inspect", "-f", "{{.State.Status}}", "box"), "paused")
    expect(podman_try("exec", "box", "true").status != 0, "exec in a paused container")
    podman("unpause", "box")
    podman("exec", "box", "true")
    podman("stop", "-t", "20", "box")
    same(podman("inspect", "-f", "{{.State.ExitCode}}", "box"), "7")
    podman("start", "box")
    podman("kill", "-s", "TERM", "box")
    same(podman("wait", "box"), "7")
    podman("start", "box")
    podman("kill", "box")
    same(podman("wait", "box"), "137")
    podman("start", "box")
    podman("restart", "-t", "20", "box")
    podman("rm", "-f", "-t", "0", "box")
    start("sleep 1000")
    podman("stop", "-t", "0", "box")
    start(SLEEP, name="d")
    podman("pause", "d")
    podman("rm", "-f", "-t", "0", "d")


@scenario
def a_restart_policy_starts_again():
    start("echo run; exit 1", "--restart", "on-failure:3")
    same(podman("wait", "box"), "1")
    until(lambda: podman("logs", "box").split() == ["run"] * 4, "four runs")


@scenario
def logs_top_stats_and_inspect():
    start(f"echo out; echo err >&2; {SLEEP}")
    until(lambda: podman("logs", "box") == "out", "logs")
    expect("sleep" in podman("top", "box", "args"), podman("top", "box", "args"))
    expect("sleep" in podman("top", "box", "aux"))
    stats = json.loads(podman("stats", "--no-stream", "--format", "json", "box"))[0]
    expect(int(stats["pids"]) >= 1 and stats["mem_usage"][0] != "0", stats)
    state = json.loads(podman("inspect", "box"))[0]
    same(os.readlink(f"/proc/{state['State']['Pid']}/ns/pid") != os.readlink("/proc/self/ns/pid"), True)


@scenario
def update_changes_limits():
    start(SLEEP, "--memory", "64m", "--cpus", "1", "--pids-limit", "100")
    podman("update", "--memory", "96m", "--memory-swap", "96m", "--cpus", "0.5", "box")
    look = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max"
    same(podman("exec", "box", "sh", "-c", look).split(), [str(96 << 20), "50000", "100"])


@scenario(may_be_forbidden="Debian's conmon writes its note of it where Debian's podman does not look")
def memory_beyond_the_limit_is_an_oom_kill():
    start("tail /dev/zero", "--memory", "16m", "--memory-swap", "16m")
    same(podman("wait", "box"), "137")
    same(podman("inspect", "-f", "{{.State.OOMKilled}}", "box"), "true")


@scenario
def limits_are_what_the_kernel_has():
    limits(sh)


@scenario
def read_only_users_capabilities_and_filters():
    sh("touch /x", "--read-only", status=1)
    sh("touch /tmp/x /run/x /dev/shm/x", "--read-only")
    same(sh("id -u; id -g; id -G", "--user", "12:34", "--group-add", "56").split(), ["12", "34", "34", "56"])
    caps = "grep CapEff /proc/self/status | cut -f2"
    same(sh(caps, "--cap-drop", "all"), "0" * 16)
    same(int(sh(caps, "--cap-drop", "all", "--cap-add", "net_admin"), 16), 1 << 12)
    same(sh("grep Seccomp: /proc/self/status | cut -f2"), "2")
    same(sh("grep Seccomp: /proc/self/status | cut -f2", "--security-opt", "seccomp=unconfined"), "0")
    sh("unshare -m true", status=1)
    same(sh("grep NoNewPrivs: /proc/self/status | cut -f2", "--security-opt", "no-new-privileges"), "1")
    sh("mknod /tmp/n c 1 3", "--cap-drop", "mknod", status=1)
    same(sh("cat /proc/kcore | wc -c; ls /proc/acpi /sys/firmware | grep -c . || :").split()[0], "0")
    sh("mount -t tmpfs t /mnt || mount -t tmpfs t /tmp", "--privileged")


@scenario
def devices():
    same(sh("stat -c %t:%T /dev/zap; head -c 2 /dev/zap | wc -c", "--device", "/dev/zero:/dev/zap:r"), "1:5\n2")
    sh(": </dev/fuse", "--device", "/dev/fuse:/dev/fuse:r")
    sh(": >/dev/fuse", "--device", "/dev/fuse:/dev/fuse:r", status=1)
    sh("mknod /tmp/k c 10 229 && : </tmp/k", status=1)


@scenario
def volumes_with_their_propagation():
    os.makedirs("/run/vol/sub", exist_ok=True)
    run("mount", "-t", "tmpfs", "vol", "/run/vol")
    run("mount", "--make-shared", "/run/vol")
    os.makedirs("/run/vol/sub", exist_ok=True)
    try:
        for how, seen in [("rslave", 1), ("rprivate", 0), ("rshared", 1)]:
            start(SLEEP, "-v", f"/run/vol:/vol:{how}")
            run("mount", "-t", "tmpfs", "later", "/run/vol/sub")
            same(podman("exec", "box", "sh", "-c", "grep -c /vol/sub /proc/self/mountinfo || :"), str(seen))
            run("umount", "/run/vol/sub")
            podman("rm", "-f", "-t", "0", "box")
        sh("mount -t tmpfs in /vol/sub", "--privileged", "-v", "/run/vol:/vol:rshared")
        run("umount", "/run/vol/sub")
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
    start(SLEEP)
    for kind, option in [("pid", "--pid"), ("net", "--net"), ("ipc", "--ipc"), ("uts", "--uts")]:
        same(
            sh(f"readlink /proc/self/ns/{kind}", option, "container:box"),
            podman("exec", "box", "readlink", f"/proc/self/ns/{kind}"),
        )
    start("sleep 1001", "--pid", "container:box", name="d")
    expect("sleep 1001" in podman("exec", "box", "ps"))
    podman("rm", "-f", "-t", "0", "d")
    expect("sleep 1001" not in podman("exec", "box", "ps"))
    start("sleep 1002 & sleep 1003", "--pid", "host", name="e")
    podman("rm", "-f", "-t", "0", "e")
    expect("sleep 100" not in run("ps", "-e", "-o", "args"), run("ps", "-e", "-o", "args"))


@scenario
def init_reaps():
    start("sleep 0.1 & exec sleep 1000", "--init")
    expect("init" in podman("exec", "box", "cat", "/proc/1/cmdline"))
    podman("stop", "-t", "5", "box")


@scenario
def a_healthcheck_runs():
    start(SLEEP, "--health-cmd", "test -e /tmp/well", "--health-interval", "disable")
    podman("healthcheck", "run", "box", status=1)
    podman("exec", "box", "touch", "/tmp/well")
    podman("healthcheck", "run", "box")


@scenario
def odds_and_ends_of_the_command_line():
    same(
        sh(
            "hostname; cat /proc/sys/net/ipv4/ip_forward; umask; pwd; echo $A; ulimit -n; cat /proc/sys/kernel/shmmni",
            "--hostname",
            "h",
            "--sysctl",
            "net.ipv4.ip_forward=1",
            "--umask",
            "0077",
            "-w",
            "/tmp",
            "-e",
            "A=b",
            "--ulimit",
            "nofile=100:100",
            "--ulimit",
            "nproc=1000:1000",
            "--sysctl",
            "kernel.shmmni=99",
        ).split(),
        ["h", "1", "0077", "/tmp", "b", "100", "99"],
    )
    same(sh("ip link show lo | grep -c LOWER_UP", "--network", "none"), "1")
    sh("true", "--cgroups", "no-conmon")
    sh("true", "--no-hosts")
    sh("true", "--oom-score-adj", "500")
    sh("true", "--security-opt", "unmask=ALL")
    sh("true", "--security-opt", "mask=/proc/uptime")
    sh("cat /proc/self/cgroup | grep -q my-parent", "--cgroup-parent", "/my-parent", "--cgroupns", "host")
    podman("--runtime-flag", "debug", "run", "--rm", IMAGE, "true")


@scenario
def copy_commit_export_attach_rename_create():
    start(SLEEP)
    with open("/run/file", "w") as file:
        file.write("copied")
    podman("cp", "/run/file", "box:/tmp/file")
    same(podman("exec", "box", "cat", "/tmp/file"), "copied")
    podman("cp", "box:/tmp/file", "/run/back")
    same(open("/run/back").read(), "copied")
    podman("commit", "-q", "box", "committed")
    same(podman("run", "--rm", "committed", "cat", "/tmp/file"), "copied")
    podman("rename", "box", "e")
    podman("rm", "-f", "-t", "0", "e")
    podman("rmi", "committed")
    podman("create", "-i", "--name", "f", IMAGE, "cat")
    same(podman("start", "-ai", "f", stdin="attached"), "attached")


@scenario
def published_ports():
    start("echo answer | nc -l -p 80; sleep 1000", "-p", "127.0.0.1:8080:80")
    until(
        lambda: attempt("busybox", "nc", "-w", "2", "127.0.0.1", "8080", stdin="").out.strip() == "answer", "an answer"
    )


@scenario
def twenty_at_once():
    twenty(lambda number: sh(f"echo {number}"))


@scenario
def a_container_without_control_groups():
    same(
        sh("cat /proc/self/cgroup", "--cgroups", "disabled", "--cgroupns", "host"),
        open("/proc/self/cgroup").read().strip(),
    )


COUNT = "i=0; while :; do i=$((i+1)); echo $i >/dev/shm/n; sleep 0.02; done"


def count(name):
    seen = podman("exec", name, "cat", "/dev/shm/n").strip()
    return int(seen or 0)


@scenario
def a_checkpoint_is_restored_here_and_under_another_name():
    box = start(COUNT)
    until(lambda: count(box) > 3, "it counts")
    podman("container", "checkpoint", box)
    same(podman("inspect", "--format", "{{.State.Status}}", box).strip(), "exited")
    podman("container", "restore", box)
    expect(count(box) > 3, "it has begun anew")
    podman("container", "checkpoint", "--export", "/run/tmp/box.tar.gz", box)
    podman("rm", "-f", box)
    podman("container", "restore", "--import", "/run/tmp/box.tar.gz", "--name", "other")
    before = count("other")
    expect(before > 3, before)
    until(lambda: count("other") > before, "it goes on")


@scenario
def a_killed_podman_leaves_its_container_running():
    client = subprocess.Popen(
        [*command(), "run", "--name", "box", IMAGE, "sh", "-c", SLEEP],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: podman_try("exec", "box", "true").status == 0, "the container")
    client.kill()
    client.wait()
    podman("exec", "box", "true")
    podman("stop", "-t", "20", "box")
    same(podman("inspect", "-f", "{{.State.ExitCode}}", "box"), "7")
