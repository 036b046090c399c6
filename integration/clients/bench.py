#!/usr/bin/python3
"""bench.py: what `run --rm … true` takes of each client with RT, runc and crun, which take turns. Writes a table in
Markdown: medians in milliseconds, and those of the ratio of RT's time to the other's of the same round. Only to be
run by world.sh, and with crun on a host of one version of control groups only."""

import os
import shutil
import statistics
import sys
import time

import docker
import harness
import image
import podman

ROUNDS = int(os.environ.get("RT_BENCH_ROUNDS", "30"))
IMAGE = "docker.io/library/busybox:latest"
RUNTIMES = {"rt": harness.RT, "runc": shutil.which("runc"), "crun": shutil.which("crun")}
CLIENTS = {
    "ctr run --rm": lambda name: ["ctr", "run", "--rm", "--runc-binary", RUNTIMES[name], IMAGE, "box", "true"],
    "podman run --rm": lambda name: ["podman", "--runtime", RUNTIMES[name], "run", "--rm", IMAGE, "true"],
    "docker run --rm": lambda name: [docker.DOCKER, "run", "--rm", "--runtime", f"{name}-bench", IMAGE, "true"],
}


def configure_docker(text):
    runtimes = ", ".join(f'"{name}-bench": {{"path": "{path}"}}' for name, path in RUNTIMES.items())
    return text.replace('"runtimes": {', f'"runtimes": {{ {runtimes},')


def milliseconds(command):
    began = time.monotonic()
    harness.run(*command)
    return (time.monotonic() - began) * 1000


def row(client, command):
    times = {name: [] for name in RUNTIMES}
    for number in range(ROUNDS + 2):
        names = list(RUNTIMES)
        for name in names if number % 2 else reversed(names):
            took = milliseconds(command(name))
            if number >= 2:
                times[name].append(took)
    cells = [f"{statistics.median(taken):.0f}" for taken in times.values()]
    for other in list(RUNTIMES)[1:]:
        ratios = [ours / theirs for ours, theirs in zip(times["rt"], times[other])]
        low, middle, high = statistics.quantiles(ratios, n=4)
        cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
    return f"| `{client} … true` | {' | '.join(cells)} |"


def main():
    os.chdir("/run/tmp")
    for name in [name for name, path in RUNTIMES.items() if not path]:
        del RUNTIMES[name]
    rootfs = os.path.join(os.path.dirname(harness.INTEGRATIONS), "../bundles/hello/rootfs")
    image.write(rootfs, harness.IMAGES, {IMAGE: ["sh"]})
    podman.begin()
    docker.begin(configure_docker)
    harness.run("ctr", "image", "import", harness.IMAGES)
    names = list(RUNTIMES)
    heads = [f"{name}, ms" for name in names] + [f"rt / {name}" for name in names[1:]]
    print(f"| client | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for client, command in CLIENTS.items():
        print(row(client, command), flush=True)
    docker.end()


if __name__ == "__main__":
    sys.exit(main())
