"""containerd's CRI plugin, spoken to as a kubelet does. The messages are written by hand: api.proto of
k8s.io/cri-api, runtime.v1, has these numbers."""

import json
import os

import grpc

from harness import *

HANDLER = "rt"
IMAGE = "docker.io/library/busybox:latest"


CNI = """{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]}}]}"""
# What is the tests', and not the user's: where Debian has the plugins, and no network to pull images from.
OURS = """
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
"""
daemon = Daemon("containerd")


def begin():
    configure("/etc/containerd/config.toml", lambda text: text.replace("version = 2\n", "version = 2\n" + OURS))
    os.makedirs("/etc/cni/net.d", exist_ok=True)
    with open("/etc/cni/net.d/10-pods.conflist", "w") as file:
        file.write(CNI)
    daemon.start(ready=["ctr", "version"])
    run("ctr", "-n", "k8s.io", "image", "import", IMAGES)
    until(lambda: call_succeeds("Status"), "the CRI plugin")


def end():
    daemon.stop()
    attempt("ip", "link", "del", "cni0")


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def message(fields):
    """A protobuf message: {number: int, str, bytes, dict as a message, or a list of these}."""
    out = b""
    for number, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int):
                out += varint(number << 3) + varint(one)
            else:
                one = message(one) if isinstance(one, dict) else one.encode() if isinstance(one, str) else one
                out += varint(number << 3 | 2) + varint(len(one)) + one
    return out


def read(data):
    """The fields of a message: {number: [int or bytes]}."""

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    at, fields = 0, {}
    while at < len(data):
        key = number()
        if key & 7 == 2:
            size = number()
            value, at = data[at : at + size], at + size
        else:
            value = number()
        fields.setdefault(key >> 3, []).append(value)
    return fields


def call(method, fields, seconds=SECONDS):
    with grpc.insecure_channel("unix:///run/containerd/containerd.sock") as channel:
        try:
            return read(channel.unary_unary(f"/runtime.v1.RuntimeService/{method}")(message(fields), timeout=seconds))
        except grpc.RpcError as error:
            raise Failed(f"{method}: {error.code()}: {error.details()}") from None


def call_succeeds(method):
    try:
        return call(method, {}) is not None
    except Failed:
        return False


def pod_config(name, security=None):
    # As a kubelet has it: the host's network comes with the host's name.
    hostname = "" if security and security.get(1, {}).get(1) == 2 else name
    return {1: {1: name, 2: name + "-uid", 3: "default"}, 2: hostname, 3: "/run/pods", 8: {2: security or {}}}


def pod(name="pod", **options):
    return call("RunPodSandbox", {1: pod_config(name, **options), 2: HANDLER})[1][0].decode()


def create(sandbox, script, name="one", resources=None, security=None, mounts=(), pod_options=None):
    config = {
        1: {1: name},
        2: {1: IMAGE},
        3: ["sh", "-c", script],
        11: name + ".log",
        15: {1: resources or {}, 2: security or {}},
        7: list(mounts),
    }
    return call("CreateContainer", {1: sandbox, 2: config, 3: pod_config("pod", **(pod_options or {}))})[1][0].decode()


def start(*args, **options):
    container = create(*args, **options)
    call("StartContainer", {1: container})
    return container


def exec_sync(container, *command, status=0):
    answer = call("ExecSync", {1: container, 2: list(command), 3: 20})
    same(answer.get(3, [0])[0], status)
    return answer.get(1, [b""])[0].decode().strip()


def state(container):
    """0 created, 1 running, 2 exited; and the exit code."""
    fields = read(call("ContainerStatus", {1: container})[1][0])
    return fields.get(3, [0])[0], fields.get(7, [0])[0]


def clean():
    for sandbox in call("ListPodSandbox", {}).get(1, []):
        name = read(sandbox)[1][0].decode()
        call("StopPodSandbox", {1: name})
        call("RemovePodSandbox", {1: name})


@scenario
def a_pod_with_a_container_lives_and_ends():
    sandbox = pod()
    container = create(sandbox, f"echo logged; {SLEEP}")
    same(state(container), (0, 0))
    call("StartContainer", {1: container})
    same(state(container), (1, 0))
    same(exec_sync(container, "hostname"), "pod")
    exec_sync(container, "sh", "-c", "exit 6", status=6)
    until(lambda: "logged" in open("/run/pods/one.log").read(), "the log")
    call("StopContainer", {1: container, 2: 20})
    same(state(container), (2, 7))
    call("RemoveContainer", {1: container})
    call("StopPodSandbox", {1: sandbox})
    call("RemovePodSandbox", {1: sandbox})
    same(call("ListPodSandbox", {}), {})


@scenario
def the_handler_of_a_runtime_class_is_the_runtime():
    sandbox = pod()
    info = json.loads(
        next(
            v
            for k, v in ((read(e)[1][0], read(e)[2][0]) for e in call("PodSandboxStatus", {1: sandbox, 2: 1})[2])
            if k == b"info"
        )
    )
    same(info["runtimeHandler"], HANDLER)
    same(info["runtimeOptions"]["binary_name"], rt())


@scenario
def the_containers_of_a_pod_share_its_namespaces():
    sandbox = pod(security={1: {2: 0}})
    one, two = start(sandbox, SLEEP, security={3: {2: 0}}), start(sandbox, SLEEP, name="two", security={3: {2: 0}})
    for kind in ["net", "ipc", "uts", "pid"]:
        same(exec_sync(one, "readlink", f"/proc/self/ns/{kind}"), exec_sync(two, "readlink", f"/proc/self/ns/{kind}"))
    expect("10.88." in exec_sync(one, "ip", "addr"), exec_sync(one, "ip", "addr"))


@scenario
def a_pod_in_the_host_s_namespaces():
    security = {1: {1: 2, 2: 2, 3: 2}}
    sandbox = pod(security=security)
    container = start(sandbox, SLEEP, security={3: security[1]}, pod_options={"security": security})
    for kind in ["net", "ipc", "pid"]:
        same(exec_sync(container, "readlink", f"/proc/self/ns/{kind}"), os.readlink(f"/proc/self/ns/{kind}"))


@scenario
def limits_are_resized_in_place_and_measured():
    sandbox = pod()
    container = start(sandbox, SLEEP, resources={1: 100000, 2: 50000, 3: 512, 4: 64 << 20})
    look = ["sh", "-c", "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.shares"]
    same(exec_sync(container, *look).split(), [str(64 << 20), "50000", "512"])
    call("UpdateContainerResources", {1: container, 2: {1: 100000, 2: 80000, 3: 800, 4: 96 << 20}})
    same(exec_sync(container, *look).split(), [str(96 << 20), "80000", "800"])
    stats = read(call("ContainerStats", {1: container})[1][0])
    used = read(read(stats[3][0])[2][0])[1][0]
    expect(0 < used < 96 << 20, used)


@scenario
def security_contexts():
    sandbox = pod()
    container = start(
        sandbox,
        SLEEP,
        security={1: {1: ["NET_ADMIN"], 2: ["ALL"]}, 5: {1: 1000}, 12: {1: 2000}, 7: 1, 8: [3000], 11: 1, 15: {1: 0}},
    )
    same(exec_sync(container, "sh", "-c", "id -u; id -g; id -G").split(), ["1000", "2000", "2000", "3000"])
    same(
        exec_sync(container, "sh", "-c", "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | cut -f2").split(),
        ["1", "2"],
    )
    exec_sync(container, "touch", "/x", status=1)
    privileged_pod = {6: 1}
    call("StopPodSandbox", {1: sandbox})
    call("RemovePodSandbox", {1: sandbox})
    sandbox = pod(security=privileged_pod)
    container = start(sandbox, SLEEP, security={2: 1}, pod_options={"security": privileged_pod})
    exec_sync(container, "mount", "-t", "tmpfs", "t", "/tmp")


@scenario
def mounts_with_their_propagation():
    os.makedirs("/run/vol", exist_ok=True)
    run("mount", "-t", "tmpfs", "vol", "/run/vol")
    run("mount", "--make-shared", "/run/vol")
    os.makedirs("/run/vol/sub")
    try:
        sandbox = pod()
        slave = start(sandbox, SLEEP, mounts=[{1: "/vol", 2: "/run/vol", 5: 1}])
        run("mount", "-t", "tmpfs", "later", "/run/vol/sub")
        same(exec_sync(slave, "grep", "-c", "/vol/sub", "/proc/self/mountinfo"), "1")
    finally:
        attempt("umount", "-R", "/run/vol")


@scenario
def errors_are_the_runtime_s():
    sandbox = pod()
    container = create(sandbox, "true")
    call("StartContainer", {1: container})
    until(lambda: state(container) == (2, 0), "its end")
    missing = call(
        "CreateContainer",
        {1: sandbox, 2: {1: {1: "two"}, 2: {1: IMAGE}, 3: ["missing"], 11: "two.log", 15: {}}, 3: pod_config("pod")},
    )[1][0].decode()
    try:
        call("StartContainer", {1: missing})
    except Failed as failure:
        expect("executable file not found in $PATH" in str(failure), failure)
        return
    raise Failed("a missing program was started")


@scenario
def memory_beyond_the_limit_is_an_oom_kill():
    container = start(pod(), "tail /dev/zero", resources={4: 16 << 20})
    until(lambda: state(container)[0] == 2, "its end")
    same(state(container)[1], 137)
    until(lambda: read(call("ContainerStatus", {1: container})[1][0]).get(10) == [b"OOMKilled"], "its reason")
