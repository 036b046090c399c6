"""containerd by its own command, ctr."""

import os
import signal

from harness import *
from leftovers import processes

IMAGE = "docker.io/library/busybox:latest"


daemon = Daemon("containerd")
READY = ["ctr", "task", "ls"]


def begin():
    daemon.start(READY)
    ctr("image", "import", IMAGES)


def end():
    daemon.stop()


def ctr(*args, **options):
    return run("ctr", *args, **options)


def ctr_run(*args, **options):
    return ctr("run", "--runc-binary", rt(), *args, **options)


def sh(script, *options, name="box", **more):
    """The output goes through a file: ctr loses that of a program that ends before ctr has opened its pipes."""
    path = f"/run/out.{name}"
    open(path, "w").close()
    file = ["--mount", f"type=bind,src={path},dst=/out,options=rbind:rw"]
    ctr_run("--rm", *options, *file, IMAGE, name, "sh", "-c", f"exec >/out; {script}", **more)
    with open(path) as out:
        return out.read().strip()


def start(script, *options, name="box"):
    ctr_run("-d", *options, IMAGE, name, "sh", "-c", script)


def status(name="box"):
    return next((line.split()[2] for line in ctr("task", "ls").splitlines() if line.split()[0] == name), "none")


def clean():
    for name in ctr("task", "ls", "-q").split():
        attempt("ctr", "task", "resume", name)
        attempt("ctr", "task", "rm", "-f", name)
    for name in ctr("container", "ls", "-q").split():
        ctr("container", "rm", name)


@scenario
def a_program_s_status_is_ctr_s():
    same(sh("echo out"), "out")
    sh("exit 3", status=3)
    missing = attempt("ctr", "run", "--rm", "--runc-binary", rt(), IMAGE, "box", "missing")
    expect(missing.status != 0 and "executable file not found in $PATH" in missing.err, missing)


@scenario
def a_terminal_follows_its_size():
    line = ["ctr", "run", "--rm", "-t", "--runc-binary", rt(), IMAGE, "box", "sh", "-c", WAIT_FOR_SIZES]
    same(at_terminal(*line, size=SIZES[0], lines=[("is 30", SIZES[1])])[0], 5)


@scenario
def exec_kill_pause_and_metrics():
    start(SLEEP)
    ctr("task", "exec", "--exec-id", "one", "box", "test", "-e", "/proc/1")
    ctr("task", "exec", "--exec-id", "two", "box", "sh", "-c", "exit 6", status=6)
    exit_status, shown = at_terminal(
        "ctr", "task", "exec", "-t", "--exec-id", "three", "box", "sh", lines=[("# ", "tty; exit 9\n")]
    )
    expect(exit_status == 9 and "/dev/pts/" in shown, exit_status, shown)
    expect(len(ctr("task", "ps", "box").splitlines()) >= 2)
    expect("pids" in ctr("task", "metrics", "box"), ctr("task", "metrics", "box"))
    ctr("task", "pause", "box")
    same(status(), "PAUSED")
    ctr("task", "resume", "box")
    same(status(), "RUNNING")
    ctr("task", "kill", "-s", "SIGTERM", "box")
    until(lambda: status() == "STOPPED", "the end")
    ctr("task", "rm", "box")


@scenario
def options_of_ctr_run():
    same(sh("pwd", "--cwd", "/made/up"), "/made/up")
    sh("touch /x", "--read-only", status=1)
    same(sh("readlink /proc/self/ns/net", "--net-host"), os.readlink("/proc/self/ns/net"))
    same(
        sh("cat /v/hostname", "--mount", "type=bind,src=/etc,dst=/v,options=rbind:ro"),
        open("/etc/hostname").read().strip(),
    )
    same(sh("grep Seccomp: /proc/self/status | cut -f2", "--seccomp"), "2")
    sh("mount -t tmpfs t /tmp", "--privileged")
    sh("test -e /dev/fuse", "--device", "/dev/fuse")


@scenario
def limits_are_what_the_kernel_has():
    start(SLEEP, "--memory-limit", str(64 << 20), "--cpus", "0.5", "--cpu-shares", "512")
    for file, value in [
        ("memory/default/box/memory.limit_in_bytes", 64 << 20),
        ("cpu/default/box/cpu.cfs_quota_us", 50000),
        ("cpu/default/box/cpu.shares", 512),
    ]:
        same(open(f"/sys/fs/cgroup/{file}").read().strip(), str(value))


@scenario
def memory_beyond_the_limit_ends_the_program():
    sh("tail /dev/zero", "--memory-limit", str(16 << 20), status=137)


@scenario
def twenty_at_once():
    twenty(lambda number: sh(f"echo {number}", name=f"box{number}"))


@scenario
def a_container_survives_the_daemon():
    start(SLEEP)
    daemon.kill()
    daemon.start(READY)
    same(status(), "RUNNING")
    ctr("task", "exec", "--exec-id", "one", "box", "true")
    ctr("task", "kill", "-s", "SIGTERM", "box")
    until(lambda: status() == "STOPPED", "the end")


@scenario
def a_killed_shim_leaves_a_container_that_can_be_removed():
    start(SLEEP)
    shims = [pid for pid, line in processes().items() if "containerd-shim" in line and " box " in line]
    same(len(shims), 1)
    os.kill(int(shims[0]), signal.SIGKILL)
    until(lambda: status() in ("none", "STOPPED", "UNKNOWN"), "its task's end")
    sh("true", name="box2")


@scenario
def a_checkpoint_is_restored_as_another_container():
    start("i=0; while :; do i=$((i+1)); echo $i >/dev/shm/n; sleep 0.02; done")

    def count(name):
        seen = ctr("task", "exec", "--exec-id", f"look{os.urandom(4).hex()}", name, "cat", "/dev/shm/n").strip()
        return int(seen or 0)

    until(lambda: count("box") > 3, "it counts")
    ctr("container", "checkpoint", "--task", "--rw", "box", "checkpoint:1")
    ctr("task", "rm", "-f", "box")
    ctr("container", "restore", "--live", "--rw", "other", "checkpoint:1")
    before = count("other")
    expect(before > 3, before)
    until(lambda: count("other") > before, "it goes on")
