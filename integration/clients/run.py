#!/usr/bin/python3
"""run.py [WORD]...: runs the scenarios with one of the words in their names, or all. RT is the runtime. One line for
each; the exit status is 1 if one failed, or if a client left something behind. Only to be run by world.sh."""

import importlib
import os
import subprocess
import sys
import time

import harness
import image
from leftovers import Leftovers

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = ["buildah", "podman", "pods", "containerd", "cri", "docker"]
# What the machine itself forbids is shown failing with this one too.
REFERENCE = "/usr/sbin/runc"
MOST_FORBIDDEN = 5


def sentence(function):
    return f"{function.__module__}: {function.__name__.replace('_', ' ')}"


def wanted(function, words):
    return not words or any(word in sentence(function) for word in words)


def verdict(client, function):
    """Runs a scenario; the word for its line, and why."""
    try:
        function()
        return "ok", ""
    except Exception as failure:
        why = str(failure) if isinstance(failure, harness.Failed) else repr(failure)
    if not function.may_be_forbidden:
        return "FAILED", why
    client.clean()
    with harness.runtime(REFERENCE):
        try:
            function()
        except Exception:
            return "forbidden", f"{function.may_be_forbidden}; runc fails as well"
    return "FAILED", f"{why}\n(runc passes)"


def run_client(name, words):
    """Runs a client's scenarios; the verdicts."""
    client = importlib.import_module(name)
    scenarios = [f for module, f in harness.scenarios if module == name and wanted(f, words)]
    if not scenarios:
        return []
    before = Leftovers()
    try:
        client.begin()
    except harness.Failed as failure:
        print(f"FAILED    {name}: {failure}", flush=True)
        return ["FAILED"]
    verdicts = []
    for function in scenarios:
        began = time.monotonic()
        word, why = verdict(client, function)
        client.clean()
        print(f"{word:9} {sentence(function)} ({time.monotonic() - began:.1f} s)", flush=True)
        if why:
            print("          " + why.replace("\n", "\n          "), flush=True)
        verdicts.append(word)
    client.end()
    left = before.left_behind()
    print(
        f"{'FAILED' if left else 'ok':9} {name}: leaves nothing behind",
        *left,
        sep="\n          " if left else "",
        flush=True,
    )
    return verdicts + ["FAILED" if left else "ok"]


def main(words):
    if os.environ.get("IN_WORLD") != "1":
        sys.exit("run.py: run me by world.sh")
    rootfs = os.path.join(HERE, "../../bundles/hello/rootfs")
    # Clients leave files in their directory.
    os.chdir("/run/tmp")
    image.write(
        rootfs, harness.IMAGES, {"docker.io/library/busybox:latest": ["sh"], "localhost/pause:1": ["sleep", "1000000"]}
    )
    print(subprocess.run([harness.RT, "--version"], capture_output=True, text=True).stdout.splitlines()[0])
    verdicts = [word for name in CLIENTS for word in run_client(name, words)]
    counts = {word: verdicts.count(word) for word in ["ok", "forbidden", "FAILED"]}
    print(", ".join(f"{count} {word}" for word, count in counts.items()))
    return 1 if counts["FAILED"] or counts["forbidden"] > MOST_FORBIDDEN or not counts["ok"] else 0


if __name__ == "__main__":
    sys.path.insert(0, HERE)
    sys.exit(main(sys.argv[1:]))
