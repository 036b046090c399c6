"""Scenarios: functions whose names are sentences. A scenario fails by raising."""

import concurrent.futures
import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

RT = os.environ["RT"]
IMAGES = "/run/images.tar"
INTEGRATIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/integrations.md")
# For one command; the machine may be busy.
SECONDS = 120
# A program that says 7 when it is asked to end.
SLEEP = "trap 'exit 7' TERM; while :; do sleep 1 & wait $!; done"
# Ends with 5 when its terminal has had these sizes, one after the other: clients set the first one late.
SIZES = [(30, 100), (40, 120)]
WAIT_FOR_SIZES = "".join(
    f'until [ "$(stty size)" = "{rows} {columns}" ]; do sleep 0.1; done; echo is {rows}; ' for rows, columns in SIZES
)
WAIT_FOR_SIZES += "exit 5"
scenarios = []


def scenario(function=None, may_be_forbidden=None):
    """Adds a scenario of the client whose module this is. `may_be_forbidden`: why the machine may not allow it."""
    if function is None:
        return lambda function: scenario(function, may_be_forbidden)
    function.may_be_forbidden = may_be_forbidden
    scenarios.append((function.__module__, function))
    return function


@contextlib.contextmanager
def runtime(path):
    """Another runtime, for as long as it is looked at what the machine forbids."""
    global RT
    usual, RT = RT, path
    try:
        yield
    finally:
        RT = usual


def rt():
    """The runtime under test."""
    return RT


def configure(path, change=lambda text: text):
    """Writes the configuration that docs/integrations.md shows for `path`, with the runtime under test in it."""
    with open(INTEGRATIONS) as file:
        block = re.search(rf"`{re.escape(path)}`[^`]*:\n\n```\w+\n(.*?)```", file.read(), re.S)
    text = re.sub(r"/usr/(local/)?bin/rt\b", RT, block[1])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(change(text))


class Daemon:
    """A daemon in a session of its own."""

    def __init__(self, *command):
        self.command, self.process = command, None

    def start(self, ready):
        """Returns when the command `ready` succeeds."""
        with open(f"/run/{self.command[0]}.log", "a") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until(lambda: self.process.poll() is not None or attempt(*ready).status == 0, self.command[0])
        expect(
            self.process.poll() is None,
            f"{self.command[0]} ended:",
            run("tail", "-n", "5", f"/run/{self.command[0]}.log"),
        )

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(SECONDS)


class Failed(Exception):
    """What a scenario expected and what it saw."""


class Result:
    """The end of a command."""

    def __init__(self, command, status, out, err):
        self.command, self.status, self.out, self.err = command, status, out, err

    def __repr__(self):
        return f"{' '.join(self.command)}: status {self.status}\n{self.out}{self.err}".strip()


def attempt(*command, stdin=None, seconds=SECONDS, **options):
    """Runs a command to its end, whatever that is."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=seconds,
            **options,
        )
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{' '.join(command)}: no end after {seconds} s: {late.stdout} {late.stderr}") from None
    return Result(command, done.returncode, done.stdout, done.stderr)


def run(*command, status=0, **options):
    """Runs a command that has to end with `status`; what it wrote."""
    result = attempt(*command, **options)
    if result.status != status:
        raise Failed(f"status {status} expected: {result!r}")
    return result.out.strip()


def expect(condition, *seen):
    if not condition:
        raise Failed(" ".join(str(s) for s in seen))


def same(seen, wanted):
    expect(seen == wanted, f"{wanted!r} expected, not {seen!r}")


def until(condition, what, seconds=SECONDS):
    """Waits for something that comes about by itself; its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise Failed(f"{what}: not within {seconds} s")


def at_terminal(*command, lines=(), size=(24, 80), seconds=SECONDS):
    """Runs a command at a terminal of `size`. `lines` are (text to wait for, action) where an action is a string
    to type or a new size. The status and all that was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    resize(terminal, size)
    shown, todo, end = "", list(lines), time.monotonic() + seconds
    while True:
        while todo and todo[0][0] in shown:
            action = todo.pop(0)[1]
            if isinstance(action, str):
                os.write(terminal, action.encode())
            else:
                resize(terminal, action)
        ready, _, _ = select.select([terminal], [], [], max(0, end - time.monotonic()))
        if not ready:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise Failed(f"{' '.join(command)}: no end at the terminal after {seconds} s: {shown!r}")
        try:
            shown += os.read(terminal, 4096).decode(errors="replace")
        except OSError:
            break
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def resize(terminal, size):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))


def twenty(command):
    """Calls `command` with twenty numbers at once: each call has to return its own."""
    numbers = [str(number) for number in range(20)]
    with concurrent.futures.ThreadPoolExecutor(len(numbers)) as pool:
        same(list(pool.map(command, numbers)), numbers)


def limits(sh):
    """What a container of `sh` sees of its limits, on a host with version 1 of control groups."""
    look = "; ".join(
        f"cat /sys/fs/cgroup/{f}"
        for f in [
            "memory/memory.limit_in_bytes",
            "memory/memory.soft_limit_in_bytes",
            "cpu/cpu.shares",
            "cpu/cpu.cfs_quota_us",
            "cpuset/cpuset.cpus",
            "pids/pids.max",
        ]
    )
    same(
        sh(
            look,
            "--memory",
            "64m",
            "--memory-reservation",
            "32m",
            "--cpu-shares",
            "512",
            "--cpu-quota",
            "20000",
            "--cpuset-cpus",
            "0",
            "--pids-limit",
            "33",
        ).split(),
        [str(64 << 20), str(32 << 20), "512", "20000", "0", "33"],
    )


def build_directory():
    """A directory with a Dockerfile; a container of the image prints `built-b` and 7."""
    os.makedirs("/run/build", exist_ok=True)
    with open("/run/build/Dockerfile", "w") as file:
        file.write(
            "FROM busybox\n"
            "ENV A=b\n"
            "RUN echo built-$A >/made\n"
            "USER 7\n"
            "WORKDIR /w\n"
            "RUN id -u >/tmp/id\n"
            "CMD cat /made /tmp/id\n"
        )
    return "/run/build"
