"""Makes images without a network."""

import hashlib
import io
import json
import os
import tarfile

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def layer_of(rootfs):
    """The directory as a layer that belongs to root."""

    def as_root(member):
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(rootfs, arcname=".", filter=as_root)
    return out.getvalue()


def config_of(layer, command):
    machine = os.uname().machine
    time = "2024-01-01T00:00:00Z"
    return json.dumps(
        {
            "architecture": ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "created": time,
            "config": {"Cmd": command, "Env": [PATH]},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
            "history": [{"created": time, "created_by": "image.py"}],
        }
    ).encode()


def write(rootfs, file, images):
    """Writes an archive that `docker load`, `podman load` and `ctr image import` take. `images`: their names and
    commands; all have the one layer."""

    def add(name, data):
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))

    layer = layer_of(rootfs)
    manifest = []
    with tarfile.open(file, "w") as tar:
        add("layer.tar", layer)
        for name, command in images.items():
            config = config_of(layer, command)
            path = hashlib.sha256(config).hexdigest() + ".json"
            add(path, config)
            manifest.append({"Config": path, "RepoTags": [name], "Layers": ["layer.tar"]})
        add("manifest.json", json.dumps(manifest).encode())
