//! Every property of a configuration that can be wrong.

use serde_json::{Value, json};

use super::Attempts;

/// A change of the configuration: where, what to (`None` removes it), and the words that have to
/// stand in the line.
type Case = (&'static str, Option<Value>, &'static [&'static str]);

fn set(place: &'static str, value: Value, words: &'static [&'static str]) -> Case {
    (place, Some(value), words)
}

fn without(place: &'static str, words: &'static [&'static str]) -> Case {
    (place, None, words)
}

/// At a JSON pointer whose parents may be missing; `-` is the end of a list.
fn change(config: &mut Value, place: &str, value: Option<Value>) {
    let (parents, last) = place.rsplit_once('/').unwrap();
    let mut at = config;
    for name in parents.split('/').skip(1) {
        at = match at {
            Value::Array(list) => &mut list[name.parse::<usize>().unwrap()],
            object => &mut object[name],
        };
    }
    match (at, value) {
        (Value::Array(list), Some(value)) if last == "-" => list.push(value),
        (Value::Array(list), Some(value)) => list[last.parse::<usize>().unwrap()] = value,
        (object, Some(value)) => object[last] = value,
        (object, None) => drop(object.as_object_mut().unwrap().remove(last).unwrap()),
    }
}

impl Attempts {
    #[track_caller]
    fn all(&self, cases: Vec<Case>) {
        for (place, value, words) in cases {
            println!("{place}: {:.99}", format!("{value:?}"));
            let mut config = self.config.clone();
            change(&mut config, place, value);
            self.write(&config);
            self.refused(self.create(), words);
        }
    }
}

#[test]
fn what_the_configuration_says_of_the_whole_is_refused() {
    let long = "x".repeat(65);
    Attempts::new().all(vec![
        without("/ociVersion", &["ociVersion"]),
        set("/ociVersion", json!("invalid"), &["ociVersion", "invalid"]),
        set("/ociVersion", json!("1.0"), &["ociVersion", "1.0"]),
        set("/ociVersion", json!("2.0.0"), &["ociVersion", "2.0.0"]),
        set("/ociVersion", json!(1.0), &["config.json", "ociVersion"]),
        without("/root", &["root"]),
        set("/root/path", json!(""), &["root.path"]),
        set("/root/path", json!("nowhere"), &["root.path", "nowhere", "No such file"]),
        set("/root/path", json!("config.json"), &["root.path", "Not a directory"]),
        set("/root/path", json!("a\0b"), &["root.path", "NUL"]),
        set("/root/path", json!({}), &["config.json", "root.path"]),
        set("/root/readonly", json!("yes"), &["config.json", "root.readonly"]),
        set("/hostname", json!(long), &["hostname", "64"]),
        set("/hostname", json!("a\0b"), &["hostname", "NUL"]),
        set("/hostname", json!(["box"]), &["config.json", "hostname"]),
        set("/domainname", json!(long), &["domainname", "64"]),
        set("/domainname", json!("a\0b"), &["domainname", "NUL"]),
        set("/annotations", json!({ "k": 1 }), &["config.json", "annotations"]),
        set("/annotations", json!({ "k": "\0" }), &["annotations", "NUL"]),
        set(
            "/annotations",
            json!({ "run.oci.seccomp_bpf_data": "BgAAAAAA/38=" }),
            &["annotations[\"run.oci.seccomp_bpf_data\"]: not supported"],
        ),
        set(
            "/annotations",
            json!({ "run.oci.seccomp.plugins": "/p.so" }),
            &["annotations[\"run.oci.seccomp.plugins\"]: not supported"],
        ),
        set(
            "/annotations",
            json!({ "run.oci.seccomp.receiver": "agent" }),
            &["annotations[\"run.oci.seccomp.receiver\"]: \"agent\" is not an absolute path"],
        ),
        set("/hooks", json!([]), &["config.json", "hooks"]),
        set("/hooks", json!({ "poststop": {} }), &["config.json", "hooks.poststop"]),
        set("/hooks", json!({ "poststop": [{}] }), &["config.json", "hooks.poststop[0]", "path"]),
        set("/hooks", json!({ "poststop": [{ "path": "x" }] }), &["hooks.poststop[0].path", "x"]),
        set(
            "/hooks",
            json!({ "poststop": [{ "path": "/x", "timeout": 0 }] }),
            &["hooks.poststop[0].timeout"],
        ),
        set("/process", json!([]), &["config.json", "process"]),
        set("/linux", json!("yes"), &["config.json", "linux"]),
        without("/linux", &["linux"]),
    ]);
}

#[test]
fn maps_in_options_of_mounts_are_refused() {
    let bind =
        |option: &str| json!({ "destination": "/m", "source": "/", "options": ["bind", option] });
    let mount = |option, words| set("/mounts/-", bind(option), words);
    let tmpfs = json!({ "destination": "/m", "type": "tmpfs",
        "options": ["idmap=uids=0-0-1;gids=0-0-1"] });
    Attempts::new().all(vec![
        mount("idmap=uids=0-1;gids=0-0-1", &["mounts[7].options[1]: idmap: ", "ID-ID-COUNT"]),
        mount("ridmap=0-0-1", &["mounts[7].options[1]: ridmap: ", "uids="]),
        mount("idmap=uids=0-0-1", &["mounts[7].options[1]: idmap: ", "only together"]),
        mount("idmap=uids=@0-0-1;gids=0-0-1", &["mounts[7].options[1]: idmap: ", "not mapped"]),
        mount("idmap=uids=0-0-0;gids=0-0-1", &["mounts[7].uidMappings[0].size"]),
        set("/mounts/-", tmpfs, &["mounts[7]", "only a bind mount"]),
    ]);
}

#[test]
fn what_the_configuration_says_of_mounts_is_refused() {
    let mount = |value: Value, words| set("/mounts/-", value, words);
    let with = |options: Value| json!({ "destination": "/m", "type": "tmpfs", "options": options });
    Attempts::new().all(vec![
        set("/mounts", json!({}), &["config.json", "mounts"]),
        mount(json!({ "type": "tmpfs" }), &["config.json", "mounts[7]", "destination"]),
        mount(json!({ "destination": "", "type": "tmpfs" }), &["mounts[7].destination"]),
        mount(json!({ "destination": "/\0", "type": "tmpfs" }), &["mounts[7].destination", "NUL"]),
        mount(json!({ "destination": "/m" }), &["mounts[7].type"]),
        mount(json!({ "destination": "/", "type": "tmpfs" }), &["mounts[7].destination", "root"]),
        mount(json!({ "destination": "/m", "type": "\0" }), &["mounts[7].type", "NUL"]),
        mount(json!({ "destination": "/m", "type": "nosuchfs" }), &["mounts[7] /m", "nosuchfs"]),
        mount(
            json!({ "destination": "/m", "type": "tmpfs", "source": "\0" }),
            &["mounts[7].source", "NUL"],
        ),
        mount(json!({ "destination": "/m", "options": ["bind"] }), &["mounts[7].source"]),
        mount(
            json!({ "destination": "/m", "source": "/nowhere", "options": ["bind"] }),
            &["mounts[7] /m", "/nowhere", "No such file"],
        ),
        mount(json!({ "destination": "/m", "source": "\0", "options": ["bind"] }), &["NUL"]),
        mount(
            json!({ "destination": "/m", "source": "/", "options": ["bind", "tmpcopyup"] }),
            &["mounts[7].options", "tmpcopyup"],
        ),
        mount(
            json!({ "destination": "/m", "source": "/", "options": ["bind", "nosuch"] }),
            &["mounts[7].options", "nosuch"],
        ),
        mount(json!({ "destination": "/m", "options": ["remount", "ro"] }), &["mounts[7] /m"]),
        mount(with(json!("nosuid")), &["config.json", "mounts[7].options"]),
        mount(with(json!([1])), &["config.json", "mounts[7].options[0]"]),
        mount(with(json!(["ro\0"])), &["mounts[7].options[0]", "NUL"]),
        mount(with(json!(["nosuch"])), &["mounts[7] /m", "nosuch"]),
        mount(with(json!(["nosuch=1"])), &["mounts[7] /m", "nosuch"]),
        mount(with(json!(["size=lots"])), &["mounts[7] /m", "size"]),
        // The image's /bin/sh is a link to a file: not what a directory is mounted on.
        mount(
            json!({ "destination": "/proc/tty", "type": "tmpfs" }),
            &["mounts[7] /proc/tty", "inside /proc"],
        ),
        mount(
            json!({ "destination": "/proc", "type": "tmpfs" }),
            &["mounts[7] /proc", "not of type proc"],
        ),
        mount(json!({ "destination": "/bin/sh", "type": "proc" }), &["mounts[7] /bin/sh"]),
    ]);
}

#[test]
fn what_the_configuration_says_of_the_process_is_refused() {
    let limit =
        |typ: &str, soft: u64, hard: u64| json!({ "type": typ, "soft": soft, "hard": hard });
    Attempts::new().all(vec![
        without("/process/cwd", &["config.json", "process", "cwd"]),
        set("/process/cwd", json!("relative"), &["process.cwd", "relative"]),
        set("/process/cwd", json!(""), &["process.cwd"]),
        set("/process/cwd", json!("/\0"), &["process.cwd", "NUL"]),
        set("/process/cwd", json!("/etc/passwd"), &["process.cwd /etc/passwd"]),
        without("/process/args", &["process.args"]),
        set("/process/args", json!([]), &["process.args"]),
        set("/process/args", json!([""]), &["process.args[0]"]),
        set("/process/args", json!(["sh", "a\0b"]), &["process.args[1]", "NUL"]),
        set("/process/args", json!("sh"), &["config.json", "process.args"]),
        set("/process/env", json!(["PATH"]), &["process.env[0]"]),
        set("/process/env", json!(["A=1", "=x"]), &["process.env[1]"]),
        set("/process/env", json!(["A=\0"]), &["process.env[0]", "NUL"]),
        set("/process/env", json!({ "A": "1" }), &["config.json", "process.env"]),
        set("/process/user/uid", json!(u32::MAX), &["process.user.uid"]),
        set("/process/user/gid", json!(u32::MAX), &["process.user.gid"]),
        set("/process/user/uid", json!(-1), &["config.json", "process.user.uid"]),
        set("/process/user/additionalGids", json!([1, u32::MAX]), &["additionalGids[1]"]),
        set("/process/user/additionalGids", json!(vec![1; 65537]), &["additionalGids", "65536"]),
        set("/process/user", json!([0, 0]), &["config.json", "process.user"]),
        set("/process/user/umask", json!("022"), &["config.json", "process.user.umask"]),
        set(
            "/process/rlimits/0/type",
            json!("RLIMIT_MOON"),
            &["process.rlimits[0]", "RLIMIT_MOON"],
        ),
        set("/process/rlimits/-", limit("RLIMIT_NOFILE", 1, 1), &["process.rlimits[1]", "twice"]),
        set("/process/rlimits/-", limit("RLIMIT_CPU", 2, 1), &["process.rlimits[1]", "RLIMIT_CPU"]),
        without("/process/rlimits/0/hard", &["process.rlimits[0]", "hard"]),
        set("/process/rlimits/0/soft", json!(-1), &["config.json", "process.rlimits[0].soft"]),
        set("/process/oomScoreAdj", json!(1001), &["process.oomScoreAdj", "1001"]),
        set("/process/oomScoreAdj", json!(-1001), &["process.oomScoreAdj", "-1001"]),
        set("/process/noNewPrivileges", json!(1), &["config.json", "process.noNewPrivileges"]),
        set("/process/capabilities", json!(["CAP_KILL"]), &["config.json", "process.capabilities"]),
        set("/process/capabilities/bounding", json!("CAP_KILL"), &["capabilities.bounding"]),
        set("/process/terminal", json!(true), &["process.terminal", "--console-socket"]),
    ]);
}

#[test]
fn what_the_configuration_says_of_scheduling_is_refused() {
    let scheduler = |value: Value, words| set("/process/scheduler", value, words);
    let cpus = |value: Value, words| set("/process/execCPUAffinity", value, words);
    let deadline = |runtime: u64, deadline: u64, period: u64| {
        json!({ "policy": "SCHED_DEADLINE",
        "runtime": runtime, "deadline": deadline, "period": period })
    };
    Attempts::new().all(vec![
        scheduler(json!({ "policy": "SCHED_MOON" }), &["process.scheduler.policy", "SCHED_MOON"]),
        scheduler(json!({ "policy": "SCHED_ISO" }), &["process.scheduler.policy", "SCHED_ISO"]),
        scheduler(json!({ "nice": 1 }), &["process.scheduler", "policy"]),
        scheduler(json!({ "policy": "SCHED_OTHER", "nice": 20 }), &["process.scheduler.nice"]),
        scheduler(json!({ "policy": "SCHED_FIFO" }), &["process.scheduler.priority", "1..99"]),
        scheduler(
            json!({ "policy": "SCHED_OTHER", "priority": 1 }),
            &["process.scheduler.priority"],
        ),
        scheduler(
            json!({ "policy": "SCHED_RR", "priority": 1, "runtime": 1 }),
            &["scheduler.runtime"],
        ),
        scheduler(deadline(10, 9999, 9999), &["process.scheduler.runtime", "1024"]),
        scheduler(deadline(9999, 5000, 9999), &["process.scheduler.deadline", "9999"]),
        scheduler(deadline(1 << 63, 0, 0), &["process.scheduler.runtime", "beyond"]),
        scheduler(json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_MOON"] }), &["flags[0]"]),
        scheduler(
            json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RECLAIM"] }),
            &["process.scheduler.flags[0]"],
        ),
        set("/process/ioPriority", json!({ "class": "MOON" }), &["process.ioPriority", "MOON"]),
        set(
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }),
            &["process.ioPriority.priority"],
        ),
        cpus(json!({ "initial": "0-" }), &["process.execCPUAffinity.initial", "0-"]),
        cpus(json!({ "final": "3-1" }), &["process.execCPUAffinity.final", "3-1"]),
        cpus(json!({ "final": [0] }), &["config.json", "process.execCPUAffinity.final"]),
        set(
            "/linux/personality",
            json!({ "domain": "MOON" }),
            &["linux.personality.domain", "MOON"],
        ),
        set(
            "/linux/personality",
            json!({ "domain": "LINUX", "flags": ["x"] }),
            &["linux.personality.flags[0]"],
        ),
    ]);
}

#[test]
fn what_the_configuration_says_of_namespaces_is_refused() {
    let one = |value: Value, words| set("/linux/namespaces/-", value, words);
    let map = |list: Value| {
        json!({ "namespaces": [{ "type": "mount" }, { "type": "uts" }, { "type": "user" }],
        "gidMappings": [{ "containerID": 0, "hostID": 0, "size": 1 }], "uidMappings": list })
    };
    let range = |a: u32, b: u32, size: u32| json!({ "containerID": a, "hostID": b, "size": size });
    let maps = |list: Value, words| set("/linux", map(list), words);
    Attempts::new().all(vec![
        one(json!({ "type": "moon" }), &["config.json", "linux.namespaces[5]", "moon"]),
        one(json!({}), &["config.json", "linux.namespaces[5]", "type"]),
        one(json!({ "type": "pid" }), &["linux.namespaces[5]", "pid", "duplicated"]),
        one(json!({ "type": "time", "path": "ns" }), &["linux.namespaces[5].path", "ns"]),
        one(
            json!({ "type": "time", "path": "/no/ns" }),
            &["linux.namespaces[5] /no/ns", "No such"],
        ),
        one(json!({ "type": "time", "path": "/etc/passwd" }), &["namespaces[5] /etc/passwd"]),
        one(json!({ "type": "time", "path": "/proc/self/ns/ipc" }), &["[5]", "ipc", "time"]),
        set("/linux/namespaces", json!([]), &["linux.namespaces", "mount"]),
        set(
            "/linux/namespaces/4/path",
            json!("/proc/self/ns/mnt"),
            &["linux.namespaces[4]", "own"],
        ),
        set("/linux/namespaces/3", json!({ "type": "time" }), &["hostname", "UTS"]),
        set("/linux/uidMappings", json!([range(0, 0, 1)]), &["linux.uidMappings", "user"]),
        one(json!({ "type": "user" }), &["linux.uidMappings"]),
        maps(json!([]), &["linux.uidMappings"]),
        maps(json!([range(0, 0, 0)]), &["linux.uidMappings[0].size"]),
        maps(json!([range(u32::MAX, 0, 2)]), &["linux.uidMappings[0].containerID"]),
        maps(json!([range(0, u32::MAX, 2)]), &["linux.uidMappings[0].hostID"]),
        maps(json!([range(0, 0, 5), range(4, 9, 1)]), &["linux.uidMappings[1]", "[0]"]),
        maps(json!([range(0, 0, 5), range(9, 4, 1)]), &["linux.uidMappings[1]", "[0]"]),
        maps(json!([range(5, 5, 1)]), &["process.user.uid", "0"]),
        maps(json!(vec![range(0, 0, 1); 341]), &["linux.uidMappings", "340"]),
        maps(json!([{ "containerID": 0, "hostID": 0 }]), &["linux.uidMappings[0]", "size"]),
        set(
            "/linux/timeOffsets",
            json!({ "monotonic": { "secs": 1 } }),
            &["timeOffsets.monotonic"],
        ),
        set("/linux/namespaces/3/type", json!("time"), &["hostname"]),
    ]);
}

#[test]
fn what_the_configuration_says_of_memory_is_refused() {
    let policy = |value: Value, words| set("/linux/memoryPolicy", value, words);
    Attempts::new().all(vec![
        policy(json!({ "mode": "MPOL_MOON" }), &["linux.memoryPolicy.mode", "MPOL_MOON"]),
        policy(json!({ "nodes": "0" }), &["linux.memoryPolicy", "mode"]),
        policy(json!({ "mode": "MPOL_BIND", "nodes": "0-" }), &["linux.memoryPolicy.nodes"]),
        policy(json!({ "mode": "MPOL_DEFAULT", "nodes": "0" }), &["linux.memoryPolicy.nodes"]),
        policy(json!({ "mode": "MPOL_BIND", "nodes": "1000" }), &["linux.memoryPolicy"]),
        policy(
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["x"] }),
            &["memoryPolicy.flags"],
        ),
        policy(json!([]), &["config.json", "linux.memoryPolicy"]),
    ]);
}

/// What is there but cannot be moved has a host of its own: `net_devices.rs`.
#[test]
fn what_the_configuration_says_of_interfaces_is_refused() {
    let devices = |value: Value, words| set("/linux/netDevices", value, words);
    let attempts = Attempts::new();
    attempts.all(vec![
        devices(json!({ "rt-none0": {} }), &["linux.netDevices.rt-none0", "no such interface"]),
        devices(json!({ "rt-none0": { "name": "a/b" } }), &["linux.netDevices", "a/b"]),
        devices(json!({ "sixteen-letters!": {} }), &["linux.netDevices", "sixteen-letters!"]),
        devices(json!({ "": {} }), &["linux.netDevices", "name"]),
        devices(json!({ "a": { "name": "x" }, "b": { "name": "x" } }), &["x is given twice"]),
        devices(json!([]), &["config.json", "linux.netDevices"]),
        devices(json!({ "a": { "name": 1 } }), &["config.json", "linux.netDevices.a.name"]),
    ]);
}

#[test]
fn what_the_configuration_says_of_time_is_refused() {
    let mut attempts = Attempts::new();
    change(&mut attempts.config, "/linux/namespaces/-", Some(json!({ "type": "time" })));
    let offsets = |value: Value, words| set("/linux/timeOffsets", value, words);
    attempts.all(vec![
        offsets(json!({ "realtime": { "secs": 1 } }), &["linux.timeOffsets.realtime"]),
        offsets(json!({ "boottime": { "nanosecs": 1_000_000_000 } }), &["boottime.nanosecs"]),
        offsets(json!({ "boottime": 5 }), &["config.json", "linux.timeOffsets.boottime"]),
        // The clock would be before the boot.
        offsets(json!({ "boottime": { "secs": -1_000_000_000 } }), &["linux.timeOffsets"]),
    ]);
}

#[test]
fn what_the_configuration_says_of_devices_and_paths_is_refused() {
    let node = |value: Value, words| set("/linux/devices", json!([value]), words);
    Attempts::new().all(vec![
        node(json!({ "path": "dev/x", "type": "c" }), &["linux.devices[0].path", "dev/x"]),
        node(json!({ "path": "/dev/x", "type": "a" }), &["linux.devices[0].type"]),
        node(json!({ "path": "/dev/x", "type": "z" }), &["config.json", "linux.devices[0].type"]),
        node(json!({ "path": "/dev/x", "type": "c", "major": 4096, "minor": 0 }), &["[0].major"]),
        node(json!({ "path": "/dev/x", "type": "b", "major": 1, "minor": -1 }), &["[0].minor"]),
        node(
            json!({ "path": "/dev/x", "type": "b", "major": 1, "minor": 1 << 20 }),
            &["[0].minor"],
        ),
        node(json!({ "type": "c" }), &["linux.devices[0].path"]),
        node(json!({ "path": "/dev/x", "type": "p", "uid": u32::MAX }), &["devices[0].uid"]),
        node(json!({ "path": "/dev/x", "type": "p", "gid": u32::MAX }), &["devices[0].gid"]),
        set("/linux/maskedPaths", json!(["/"]), &["linux.maskedPaths[0]", "root"]),
        set("/linux/maskedPaths", json!(["proc/x"]), &["linux.maskedPaths[0]", "proc/x"]),
        set("/linux/readonlyPaths", json!(["/a", "x"]), &["linux.readonlyPaths[1]", "x"]),
        set("/linux/maskedPaths", json!("/proc/x"), &["config.json", "linux.maskedPaths"]),
        set(
            "/linux/rootfsPropagation",
            json!("sideways"),
            &["linux.rootfsPropagation", "sideways"],
        ),
        set("/linux/cgroupsPath", json!("/a/../.."), &["linux.cgroupsPath", "names no cgroup"]),
        set("/linux/cgroupsPath", json!("a/.."), &["linux.cgroupsPath", "names no cgroup"]),
        set("/linux/cgroupsPath", json!("/a\0"), &["linux.cgroupsPath", "NUL"]),
        set("/linux/cgroupsPath", json!("/"), &["linux.cgroupsPath"]),
    ]);
}

#[test]
fn what_the_configuration_says_of_sysctls_is_refused() {
    let mut attempts = Attempts::new();
    let sysctl = |value: Value, words| set("/linux/sysctl", value, words);
    attempts.all(vec![
        sysctl(json!({ "vm.swappiness": "1" }), &["linux.sysctl", "vm.swappiness", "namespace"]),
        sysctl(json!({ "kernel.hostname": "x" }), &["linux.sysctl", "kernel.hostname"]),
        sysctl(json!({ "net/../vm/swappiness": "1" }), &["linux.sysctl", "net/../vm/swappiness"]),
        sysctl(json!({ "net.no.such": "1" }), &["linux.sysctl", "net/no/such", "No such file"]),
        sysctl(json!({ "kernel.shmmni": "many" }), &["linux.sysctl", "kernel/shmmni"]),
        sysctl(json!({ "kernel.shmmni": "1\0" }), &["linux.sysctl", "NUL"]),
        sysctl(json!({ "kernel.shmmni": 1 }), &["config.json", "linux.sysctl"]),
    ]);
    change(&mut attempts.config, "/linux/namespaces/1/path", Some(json!("/proc/self/ns/net")));
    change(&mut attempts.config, "/linux/namespaces/2", Some(json!({ "type": "time" })));
    attempts.all(vec![
        sysctl(json!({ "net.ipv4.ip_forward": "1" }), &["net.ipv4.ip_forward", "host"]),
        sysctl(json!({ "kernel.shmmni": "1" }), &["kernel.shmmni", "ipc"]),
    ]);
}

#[test]
fn what_the_configuration_says_of_resources_is_refused() {
    let some = |name, value, words| set(name, value, words);
    let rule = |value: Value, words| some("/linux/resources/devices/-", value, words);
    let memory = |value: Value, words| some("/linux/resources/memory", value, words);
    Attempts::new().all(vec![
        rule(json!({ "allow": true, "type": "p" }), &["linux.resources.devices[1].type"]),
        rule(json!({ "allow": true, "type": "x" }), &["linux.resources.devices[1].type"]),
        rule(json!({ "allow": true, "access": "rwx" }), &["linux.resources.devices[1].access"]),
        rule(json!({ "allow": true, "major": -2 }), &["linux.resources.devices[1].major"]),
        rule(json!({ "allow": true }), &["linux.resources.devices[1]", "access"]),
        memory(json!({ "limit": -2 }), &["linux.resources.memory.limit", "-2"]),
        memory(json!({ "limit": "1G" }), &["config.json", "linux.resources.memory.limit"]),
        memory(json!({ "limit": 1 << 30, "swap": 1 << 20 }), &["linux.resources.memory.swap"]),
        some("/linux/resources/cpu", json!({ "cpus": "0\0" }), &["cpu.cpus", "NUL"]),
        some("/linux/resources/cpu", json!({ "cpus": "many" }), &["cpuset.cpus"]),
        some("/linux/resources/cpu", json!({ "period": 1 }), &["cpu"]),
        some("/linux/resources/cpu", json!({ "shares": -1 }), &["config.json", "cpu.shares"]),
        some("/linux/resources", json!([]), &["config.json", "linux.resources"]),
        some("/linux/resources/pids", json!({ "limit": "1" }), &["config.json", "pids.limit"]),
        some(
            "/linux/resources/hugepageLimits",
            json!([{ "pageSize": "2 MB", "limit": 1 }]),
            &["hugepageLimits[0].pageSize"],
        ),
        some("/linux/resources/unified", json!({ "../x": "1" }), &["unified", "../x"]),
        some("/linux/resources/unified", json!({ "a": "\0" }), &["unified", "NUL"]),
        some("/linux/resources/rdma", json!({ "\0": { "hcaHandles": 1 } }), &["rdma", "NUL"]),
        some(
            "/linux/resources/network",
            json!({ "priorities": [{ "name": "\0", "priority": 1 }] }),
            &["network.priorities", "NUL"],
        ),
    ]);
}
