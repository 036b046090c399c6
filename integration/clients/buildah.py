"""buildah, which polls `state`."""

import os

from harness import *


def begin():
    buildah("pull", f"docker-archive:{IMAGES}:docker.io/library/busybox:latest")


def end():
    """There is no daemon."""


def buildah(*args, **options):
    return run("buildah", *args, **options)


def clean():
    buildah("rm", "-a")
    attempt("buildah", "rmi", "made")


@scenario
def run_in_a_working_container():
    box = buildah("from", "busybox")
    same(buildah("run", "--runtime", rt(), box, "--", "echo", "hi"), "hi")
    buildah("run", "--runtime", rt(), box, "--", "sh", "-c", "exit 3", status=3)
    buildah("run", "--runtime", rt(), "--user", "7", box, "--", "sh", "-c", "test $(id -u) = 7")
    buildah("run", "--runtime", rt(), "--volume", "/etc:/v:ro", box, "--", "test", "-e", "/v/passwd")
    expect(attempt("buildah", "run", "--runtime", rt(), box, "--", "missing").status != 0)
    code, shown = at_terminal(
        "buildah", "run", "--runtime", rt(), "-t", box, "--", "sh", lines=[("# ", "tty; exit 5\n")]
    )
    expect(code == 5 and "/dev/pts" in shown, code, shown)


@scenario
def build():
    os.makedirs("/run/build", exist_ok=True)
    with open("/run/build/Dockerfile", "w") as file:
        file.write("FROM busybox\nENV A=b\nRUN echo built-$A >/made\nUSER 7\nWORKDIR /w\nRUN test $(id -u) = 7\n")
    buildah("bud", "--runtime", rt(), "--isolation", "oci", "-t", "made", "/run/build")
    box = buildah("from", "made")
    same(buildah("run", "--runtime", rt(), box, "--", "cat", "/made"), "built-b")
    with open("/run/build/Dockerfile", "w") as file:
        file.write("FROM busybox\nRUN exit 3\n")
    expect(attempt("buildah", "bud", "--runtime", rt(), "/run/build").status != 0)
