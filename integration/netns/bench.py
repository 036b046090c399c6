"""bench.py RT: what networks cost. Run it in a network and mount namespace of its own (make bench-net).

Exits 1 if a promise of the documentation is not kept. Nothing leaves the namespaces that it makes.
"""

import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

CONTAINERS = 200
PORTS = 5
CNI = "/usr/lib/cni"
failed = []


def run(*words, **kwargs):
    return subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, **kwargs).stdout


def sh(script):
    return run("sh", "-ec", script).decode()


def milliseconds(*words, **kwargs):
    start = time.perf_counter()
    run(*words, **kwargs)
    return (time.perf_counter() - start) * 1000


def promise(text, kept):
    print(f"{'ok  ' if kept else 'MISS'} {text}")
    if not kept:
        failed.append(text)


class Guest:
    def __init__(self):
        self.process = subprocess.Popen(["unshare", "-n", "sleep", "1000"])
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{self.process.pid}/ns/net") == own:
            time.sleep(0.001)
        self.pid = self.process.pid

    def inside(self, *words):
        return ["nsenter", "-n", "-t", str(self.pid), *words]

    def end(self):
        self.process.kill()
        self.process.wait()


def many(netns):
    """The 200th container costs what the first ones do."""
    guests, costs = [], []
    for n in range(CONTAINERS):
        guest = Guest()
        guests.append(guest)
        ports = [word for p in range(PORTS) for word in ("--publish", f"{10000 + n * PORTS + p}:{80 + p}")]
        costs.append(milliseconds(*netns, "add", f"c{n}", "--pid", guest.pid, *ports))
    # The very first one makes the network as well.
    first, last = statistics.median(costs[1:21]), statistics.median(costs[-20:])
    print(f"     add with {PORTS} ports: first of all {costs[0]:.1f} ms, then {first:.1f} ms, after {CONTAINERS}: {last:.1f} ms")
    promise(f"the last add takes {last / first:.2f} of the first ones (at most 1.3)", last / first <= 1.3)
    return guests


def one(netns, label):
    adds, dels = [], []
    for _ in range(25):
        guest = Guest()
        adds.append(milliseconds(*netns, "add", "one", "--pid", guest.pid, "--publish", "8080:80"))
        dels.append(milliseconds(*netns, "del", "one"))
        guest.end()
    add, delete = statistics.median(adds), statistics.median(dels)
    print(f"     {label}: add {add:.1f} ms, del {delete:.1f} ms")
    return add, delete


def cni():
    config = {"cniVersion": "0.4.0", "name": "bench"}
    bridge = config | {
        "type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True,
        "ipam": {"type": "host-local", "subnet": "10.88.0.0/16", "dataDir": tempfile.mkdtemp(dir="/run")},
    }
    portmap = config | {
        "type": "portmap", "capabilities": {"portMappings": True},
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
    }
    adds, dels = [], []
    for n in range(10):
        guest = Guest()
        env = os.environ | {
            "CNI_CONTAINERID": f"c{n}", "CNI_NETNS": f"/proc/{guest.pid}/ns/net", "CNI_IFNAME": "eth0", "CNI_PATH": CNI,
        }
        start = time.perf_counter()
        env["CNI_COMMAND"] = "ADD"
        result = json.loads(run(f"{CNI}/bridge", env=env, input=json.dumps(bridge).encode()))
        chained = portmap | {"prevResult": result}
        run(f"{CNI}/portmap", env=env, input=json.dumps(chained).encode())
        adds.append((time.perf_counter() - start) * 1000)
        start = time.perf_counter()
        env["CNI_COMMAND"] = "DEL"
        run(f"{CNI}/portmap", env=env, input=json.dumps(chained).encode())
        run(f"{CNI}/bridge", env=env, input=json.dumps(bridge | {"prevResult": result}).encode())
        dels.append((time.perf_counter() - start) * 1000)
        guest.end()
    shutil.rmtree(bridge["ipam"]["dataDir"])
    add, delete = statistics.median(adds), statistics.median(dels)
    print(f"     CNI bridge, host-local, portmap: add {add:.1f} ms, del {delete:.1f} ms")
    return add, delete


def dns_client(server):
    """Run inside a container: 1000 queries a second for three seconds."""
    query = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"\x02c0\x00" + struct.pack("!2H", 1, 1)
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(1)
    client.connect((server, 53))
    costs, start = [], time.perf_counter()
    for n in range(3000):
        while time.perf_counter() < start + n / 1000:
            pass
        sent = time.perf_counter()
        client.send(query)
        answer = client.recv(512)
        assert answer[3] & 15 == 0 and answer[6:8] == b"\x00\x01"
        costs.append((time.perf_counter() - sent) * 1000)
    costs.sort()
    print(json.dumps([len(costs) / (time.perf_counter() - start), costs[len(costs) * 99 // 100]]))


def throughput(client, address, port, *words):
    text = run(*client.inside("iperf3", "-J", "-t", "3", "-c", address, "-p", port, *words) if client
               else ["iperf3", "-J", "-t", "3", "-c", address, "-p", port, *words])
    return json.loads(text)["end"]["sum_received"]["bits_per_second"] / 1e9


def bandwidth(netns):
    outside, guest = Guest(), Guest()
    sh(f"""ip link add lan type veth peer name eth0 netns {outside.pid}
           ip addr add 192.0.2.1/24 dev lan; ip link set lan up""")
    run(*outside.inside("sh", "-ec", "ip link set lo up; ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up"))
    run(*netns, "add", "server", "--pid", guest.pid, "--publish", "5201:5201", "--publish", "5202:5202")
    address = json.loads(run(*netns, "inspect", "server", "--json"))["endpoints"][0]["address"].split("/")[0]
    servers = [subprocess.Popen(guest.inside("iperf3", "-s", "-p", port), stdout=subprocess.DEVNULL) for port in ("5201", "5202")]
    time.sleep(0.5)
    proxied = throughput(None, "::1", "5201")
    published = [throughput(outside, "192.0.2.1", "5201") for _ in range(3)]
    # The same host with nothing but one rule: what we have is taken away for a moment.
    saved = sh("nft list ruleset")
    sh(f"""nft flush ruleset
           nft 'table ip hand {{ chain c {{ type nat hook prerouting priority dstnat; tcp dport 5201 dnat to {address}; }}; }}'""")
    by_hand = [throughput(outside, "192.0.2.1", "5201") for _ in range(3)]
    sh("nft flush ruleset")
    run("nft", "-f", "-", input=saved.encode())
    for server in servers:
        server.kill()
        server.wait()
    run(*netns, "del", "server")
    outside.end()
    guest.end()
    ours, theirs = max(published), max(by_hand)
    print(f"     published port {ours:.1f} Gbit/s, one rule by hand {theirs:.1f} Gbit/s, by the helper process {proxied:.1f} Gbit/s")
    promise(f"a published port has {ours / theirs:.2f} of the throughput of a rule by hand (at least 0.9)", ours / theirs >= 0.9)


def main():
    rt = os.path.realpath(sys.argv[1])
    sh("ip link set lo up")
    state = tempfile.mkdtemp(dir="/run")
    netns = [rt, "netns", "--state", state, "--networks", f"{state}/files"]
    keeper = Guest()
    run(*netns, "add", "keeper", "--pid", keeper.pid)
    add, delete = one(netns, "rt netns, one port")
    promise(f"add takes {add:.1f} ms (at most 10)", add <= 10)
    promise(f"del takes {delete:.1f} ms (at most 40)", delete <= 40)
    if os.path.exists(f"{CNI}/portmap"):
        cni_add, _ = cni()
        promise(f"add takes {add / cni_add:.2f} of CNI's (at most 0.25)", add / cni_add <= 0.25)
    run(*netns, "del", "keeper")
    guests = many(netns)
    rate, late = json.loads(run(*guests[5].inside(sys.executable, __file__, "--dns", "172.20.0.1")))
    promise(f"{rate:.0f} names a second, 99 of 100 within {late:.2f} ms (at least 990, at most 5)", rate >= 990 and late <= 5)
    bandwidth(netns)
    for n, guest in enumerate(guests):
        run(*netns, "del", f"c{n}")
        guest.end()
    keeper.end()
    shutil.rmtree(state)
    sys.exit(1 if failed else 0)


if sys.argv[1] == "--dns":
    dns_client(sys.argv[2])
else:
    main()
