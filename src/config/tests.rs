use serde_json::json;

use crate::config::*;

fn base() -> Value {
    json!({
        "ociVersion": "1.0.2-dev",
        "root": {"path": "rootfs"},
        "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [{"type": "mount"}]},
    })
}

/// Changes a property; slashes separate its path, missing parts are made.
fn set(spec: &mut Value, pointer: &str, value: Value) {
    let mut place = spec;
    for name in pointer.split('/') {
        place = match name.parse::<usize>() {
            Ok(i) => {
                if place.is_null() {
                    *place = json!([]);
                }
                let list = place.as_array_mut().unwrap();
                if list.len() == i {
                    list.push(Value::Null);
                }
                &mut list[i]
            }
            Err(_) => &mut place[name],
        };
    }
    *place = value;
}

fn with(pointer: &str, value: &str) -> Value {
    let mut spec = base();
    let value = serde_json::from_str(value).unwrap_or_else(|error| panic!("{value}: {error}"));
    set(&mut spec, pointer, value);
    spec
}

fn loaded(spec: &Value) -> Loaded {
    parse_spec(&serde_json::to_vec(spec).unwrap()).unwrap()
}

fn answer(spec: &Value) -> String {
    let bytes = serde_json::to_vec(spec).unwrap();
    match parse_spec(&bytes).and_then(|loaded| check_spec(&loaded.spec)) {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{error:#}"),
    }
}

fn columns<const N: usize>(table: &str) -> impl Iterator<Item = [&str; N]> {
    table
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            cells.try_into().unwrap_or_else(|_| panic!("{line}"))
        })
}

/// Lines of `property | value | answer`; the value replaces one property of the base.
fn assert_answers(table: &str) {
    assert_eq!(answer(&base()), "ok");
    for [pointer, value, expected] in columns(table) {
        assert_eq!(
            answer(&with(pointer, value)),
            expected,
            "{pointer} = {value}"
        );
    }
}

/// `pid net=/path`: one namespace to be made, one to be joined.
fn namespaces(types: &str) -> Value {
    let namespace = |word: &str| match word.split_once('=') {
        Some((typ, path)) => json!({"type": typ, "path": path}),
        None => json!({"type": word}),
    };
    json!(types.split_whitespace().map(namespace).collect::<Vec<_>>())
}

/// Lines of `namespaces | property | value | answer`.
fn assert_namespaced(table: &str) {
    for [types, pointer, value, expected] in columns(table) {
        let mut spec = with(pointer, value);
        set(&mut spec, "linux/namespaces", namespaces(types));
        assert_eq!(answer(&spec), expected, "{types}: {pointer} = {value}");
    }
}

#[test]
fn versions() {
    assert_answers(
        r#"
        ociVersion | "1.0.0" | ok
        ociVersion | "1.3.0" | ok
        ociVersion | "1.0.0-rc5-dev" | ok
        ociVersion | "1.2.1+build.7" | ok
        ociVersion | "1.99.0" | ok
        ociVersion | "2.0.0" | ociVersion: 2.0.0 is not supported, 1.x is
        ociVersion | "0.9.9" | ociVersion: 0.9.9 is not supported, 1.x is
        ociVersion | "invalid" | ociVersion: "invalid" is not a semantic version
        ociVersion | "" | ociVersion: "" is not a semantic version
        ociVersion | null | ociVersion: "" is not a semantic version
        ociVersion | "1.0" | ociVersion: "1.0" is not a semantic version
        ociVersion | "1.0.0.0" | ociVersion: "1.0.0.0" is not a semantic version
        ociVersion | "1.+0.0" | ociVersion: "1.+0.0" is not a semantic version
        ociVersion | "1.0.0-" | ociVersion: "1.0.0-" is not a semantic version
        ociVersion | "1.0.0 " | ociVersion: "1.0.0 " is not a semantic version
        "#,
    );
}

#[test]
fn root_and_top_level() {
    assert_answers(
        r#"
        root | null | root: required
        root/path | "" | root.path: required
        root/path | "a\u0000b" | root.path: contains a NUL byte
        linux | null | linux: required
        process | null | ok
        hostname | "" | ok
        hostname | "h" | hostname: unable to set hostname without a private UTS namespace
        domainname | "d" | domainname: unable to set domainname without a private UTS namespace
        annotations | {"a": "\u0000"} | annotations: contains a NUL byte
        annotations | {"a": "b"} | ok
        hooks | {"prestart": []} | ok
        hooks | {"poststop": [{"path": "/x", "args": ["x"], "env": ["A"], "timeout": 1}]} | ok
        hooks | {"prestart": [{"path": "x"}]} | hooks.prestart[0].path: x is not an absolute path
        hooks | {"poststart": [{"path": "/x"}, {"path": "/x", "timeout": 0}]} | hooks.poststart[1].timeout: must be more than 0 seconds
        hooks | {"createContainer": [{"path": "/x", "args": ["x", "a\u0000"]}]} | hooks.createContainer[0].args[1]: contains a NUL byte
        vm | {"hwConfig": {}} | ok
        unknown | {"property": 1} | ok
        "#,
    );
    assert_namespaced(
        r#"
        mount uts | hostname | "h" | ok
        mount uts=/proc/1/ns/uts | domainname | "d" | ok
        "#,
    );
    let mut spec = with("hostname", &format!("{:?}", "h".repeat(65)));
    set(&mut spec, "linux/namespaces", namespaces("mount uts"));
    assert_eq!(answer(&spec), "hostname: longer than 64 bytes");
}

#[test]
fn mounts() {
    assert_answers(
        r#"
        mounts/0 | {"destination": "/m", "source": "/", "options": ["rbind", "ro"]} | ok
        mounts/0 | {"destination": "m", "type": "tmpfs"} | ok
        mounts/0 | {"destination": "/m", "options": ["remount", "ro"]} | ok
        mounts/0 | {"destination": "", "type": "tmpfs"} | mounts[0].destination: required
        mounts/0 | {"destination": "\u0000"} | mounts[0].destination: contains a NUL byte
        mounts/0 | {"destination": "/m"} | mounts[0].type: required unless it is a bind mount
        mounts/0 | {"destination": "/m", "options": ["bind"], "source": ""} | mounts[0].source: required for a bind mount
        mounts/0 | {"destination": "/m", "type": "bind"} | mounts[0].source: required for a bind mount
        mounts/0 | {"destination": "/m", "source": "/", "options": ["bind", "size=1,mode=2"]} | ok
        mounts/0 | {"destination": "/m", "source": "/", "options": ["bind", "sise=1"]} | mounts[0].options: sise: not an option of a bind mount
        mounts/0 | {"destination": "/m", "type": "proc", "options": ["tmpcopyup"]} | mounts[0].options: tmpcopyup: only for a new tmpfs
        mounts/0 | {"destination": "/m/..", "type": "tmpfs"} | mounts[0].destination: /m/.. is root.path itself
        mounts/0 | {"destination": "/", "options": ["remount", "bind", "ro"]} | ok
        mounts/0 | {"destination": "/m", "source": "/", "options": ["bind", "idmap"]} | mounts[0].options: idmap: needs uidMappings and gidMappings, or a user namespace
        mounts/0 | {"destination": "/m", "type": "tmpfs", "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]} | mounts[0]: only a bind mount can be id-mapped
        mounts/0 | {"destination": "/m", "source": "/", "options": ["bind"], "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]} | mounts[0]: uidMappings and gidMappings: only together
        mounts/0 | {"destination": "/m", "source": "/", "options": ["bind"], "uidMappings": [{"containerID": 0, "hostID": 1, "size": 0}]} | mounts[0].uidMappings[0].size: 0
        "#,
    );
}

#[test]
fn processes() {
    assert_answers(
        r#"
        process/cwd | "w" | process.cwd w: Cwd must be an absolute path
        process/cwd | "" | process.cwd: Cwd property must not be empty
        process/args | [] | process.args: args must not be empty
        process/args | null | process.args: args must not be empty
        process/args | [""] | process.args[0]: empty
        process/args | ["sh", ""] | ok
        process/args | ["sh", "a\u0000"] | process.args[1]: contains a NUL byte
        process/env | ["A=", "B=c=d"] | ok
        process/env | ["A=b", "SECRET"] | process.env[1]: invalid environment variable: missing '='
        process/env | ["=b"] | process.env[0]: without a name
        process/env | ["A=\u0000"] | process.env[0]: contains a NUL byte
        process/user | null | ok
        process/user/uid | 4294967295 | process.user.uid: 4294967295 is no user
        process/user/additionalGids | [1, 4294967295] | process.user.additionalGids[1]: 4294967295 is no group
        process/oomScoreAdj | -1000 | ok
        process/oomScoreAdj | 1001 | process.oomScoreAdj: 1001 is not in -1000..1000
        process/consoleSize | {"height": 1, "width": 70000} | ok
        process/user/umask | 511 | ok
        process/user/umask | 512 | process.user.umask: 512 (octal 1000) is beyond octal 777
        process/rlimits | [{"type": "RLIMIT_AS", "soft": 0, "hard": 18446744073709551615}] | ok
        process/rlimits | [{"type": "RLIMIT_AS", "soft": 3, "hard": 2}] | process.rlimits[0]: RLIMIT_AS: soft 3 is above hard 2
        process/rlimits | [{"type": "RLIMIT_AS"}, {"type": "RLIMIT_AS"}] | process.rlimits[1]: RLIMIT_AS is given twice
        "#,
    );
    let unknown = answer(&with("process/rlimits", r#"[{"type": "RLIMIT_TEST"}]"#));
    assert!(
        unknown.starts_with("process.rlimits[0].type: unknown variant"),
        "{unknown}"
    );
    let mut spec = with("process/consoleSize", r#"{"height": 1, "width": 70000}"#);
    set(&mut spec, "process/terminal", json!(true));
    assert_eq!(answer(&spec), "process.consoleSize: larger than 65535");
}

#[test]
fn schedulers() {
    assert_answers(
        r#"
        process/scheduler | {"policy": "SCHED_OTHER", "nice": -20} | ok
        process/scheduler | {"policy": "SCHED_BATCH", "nice": 19, "priority": 0} | ok
        process/scheduler | {"policy": "SCHED_IDLE", "flags": ["SCHED_FLAG_RESET_ON_FORK"]} | ok
        process/scheduler | {"policy": "SCHED_FIFO", "priority": 99, "flags": ["SCHED_FLAG_UTIL_CLAMP_MIN"]} | ok
        process/scheduler | {"policy": "SCHED_ISO"} | process.scheduler.policy: SCHED_ISO: Linux has no such policy
        process/scheduler | {"policy": "SCHED_OTHER", "nice": 20} | process.scheduler.nice: 20 is not in -20..19
        process/scheduler | {"policy": "SCHED_OTHER", "priority": 1} | process.scheduler.priority: only for SCHED_FIFO and SCHED_RR
        process/scheduler | {"policy": "SCHED_RR"} | process.scheduler.priority: 0 is not in 1..99
        process/scheduler | {"policy": "SCHED_RR", "priority": 100} | process.scheduler.priority: 100 is not in 1..99
        process/scheduler | {"policy": "SCHED_RR", "priority": -1} | process.scheduler.priority: -1 is not in 1..99
        process/scheduler | {"policy": "SCHED_BATCH", "period": 5000} | process.scheduler.period: only for SCHED_DEADLINE
        process/scheduler | {"policy": "SCHED_OTHER", "runtime": 0} | ok
        process/scheduler | {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_KEEP_PARAMS", "SCHED_FLAG_RECLAIM"]} | process.scheduler.flags[1]: only for SCHED_DEADLINE
        process/scheduler | {"policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 1024, "flags": ["SCHED_FLAG_DL_OVERRUN"]} | ok
        process/scheduler | {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 3000, "period": 4000} | ok
        process/scheduler | {"policy": "SCHED_DEADLINE"} | process.scheduler.runtime: 0 is below 1024 nanoseconds
        process/scheduler | {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 1999} | process.scheduler.deadline: 1999 is below 2000 nanoseconds
        process/scheduler | {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 3000, "period": 2999} | process.scheduler.period: 2999 is below 3000 nanoseconds
        process/scheduler | {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 9223372036854775808} | process.scheduler.deadline: 9223372036854775808 is beyond 9223372036854775807 nanoseconds
        process/ioPriority | {"class": "IOPRIO_CLASS_IDLE", "priority": 0} | ok
        process/ioPriority | {"class": "IOPRIO_CLASS_RT", "priority": 7} | ok
        process/ioPriority | {"class": "IOPRIO_CLASS_BE", "priority": 8} | process.ioPriority.priority: 8 is not in 0..7
        process/ioPriority | {"class": "IOPRIO_CLASS_BE", "priority": -1} | process.ioPriority.priority: -1 is not in 0..7
        process/execCPUAffinity | {"initial": "", "final": "0-3,7"} | ok
        process/execCPUAffinity | {"initial": "3-1"} | process.execCPUAffinity.initial: "3-1": ends before it begins
        process/execCPUAffinity | {"final": "0,65536"} | process.execCPUAffinity.final: "65536": beyond 65535
        "#,
    );
    for (pointer, value, expected) in [
        (
            "process/scheduler",
            json!({"policy": ""}),
            "process.scheduler.policy: unknown variant ``",
        ),
        (
            "process/scheduler",
            json!({"nice": 1}),
            "process.scheduler: missing field `policy`",
        ),
        (
            "process/ioPriority",
            json!({"class": "NONE"}),
            "process.ioPriority.class: unknown variant",
        ),
        (
            "process/execCPUAffinity",
            json!({"initial": "x"}),
            "process.execCPUAffinity.initial: Inv",
        ),
    ] {
        let mut spec = base();
        set(&mut spec, pointer, value);
        let answer = answer(&spec);
        assert!(answer.starts_with(expected), "{answer}");
    }
}

#[test]
fn namespace_lists() {
    assert_namespaced(
        r#"
        mount pid | hostname | "" | ok
        mount=/proc/1/ns/mnt | hostname | "" | ok
        mount pid= | hostname | "" | ok
        pid | hostname | "" | linux.namespaces: a mount namespace is required
        mount pid mount | hostname | "" | linux.namespaces[2]: duplicated ns "mnt"
        mount pid=ns | hostname | "" | linux.namespaces[1].path: ns is not an absolute path
        mount time | linux/timeOffsets | {"monotonic": {"secs": -1, "nanosecs": 999999999}} | ok
        mount | linux/timeOffsets | {} | ok
        mount | linux/timeOffsets | {"boottime": {}} | linux.timeOffsets.boottime: needs a new time namespace
        mount time=/t | linux/timeOffsets | {"boottime": {}} | linux.timeOffsets.boottime: needs a new time namespace
        mount time | linux/timeOffsets | {"tai": {}} | linux.timeOffsets.tai: no such clock
        mount time | linux/timeOffsets | {"boottime": {"nanosecs": 1000000000}} | linux.timeOffsets.boottime.nanosecs: 1000000000 is a second or more
        "#,
    );
    let unknown = answer(&with("linux/namespaces/1", r#"{"type": "net"}"#));
    assert!(
        unknown.starts_with("linux.namespaces[1].type: unknown variant `net`"),
        "{unknown}"
    );
}

/// Lines of `namespaces | container host size, … | answer`.
#[test]
fn id_mappings() {
    let many: Vec<_> = (0..341).map(|i| format!("{i} {i} 1")).collect();
    let table = format!(
        "mount user | 0 1000 1, 1 5000 10 | ok
        mount user | {} | ok
        mount user | {} | linux.uidMappings: more than 340
        mount user | | linux.uidMappings: required for a new user namespace
        mount user=/u | 5 0 1 | ok
        mount user=/u | | ok
        mount | 0 0 1 | linux.uidMappings: needs a user namespace
        mount user | 0 0 0 | linux.uidMappings[0].size: 0
        mount user | 0 5 4294967295 | linux.uidMappings[0].hostID: ends beyond 4294967295
        mount user | 0 100 10, 9 200 10 | linux.uidMappings[1]: overlaps linux.uidMappings[0]
        mount user | 10 100 10, 0 91 10 | linux.uidMappings[1]: overlaps linux.uidMappings[0]
        mount user | 1 1 10 | process.user.uid: cannot setuid to unmapped uid 0 in user namespace",
        many[..340].join(", "),
        many.join(", ")
    );
    for [types, mappings, expected] in columns(&table) {
        let mapping = |text: &str| {
            let n: Vec<u32> = text
                .split_whitespace()
                .map(|n| n.parse().unwrap())
                .collect();
            json!({"containerID": n[0], "hostID": n[1], "size": n[2]})
        };
        let list: Vec<_> = mappings
            .split(',')
            .filter(|text| !text.is_empty())
            .map(mapping)
            .collect();
        let mut spec = with("linux/namespaces", &namespaces(types).to_string());
        if types.contains("user") {
            set(&mut spec, "linux/gidMappings/0", mapping("0 0 1"));
        }
        set(&mut spec, "linux/uidMappings", json!(list));
        assert_eq!(answer(&spec), expected, "{types} {mappings}");
    }
}

/// Lines of `namespaces | key | answer`.
#[test]
fn sysctls() {
    let table = "
        mount network | net.ipv4.ip_forward | ok
        mount network | net/ipv4/conf/eno2.100/rp_filter | ok
        mount network=/nowhere | net.ipv4.ip_forward | ok
        mount network=/proc/self/ns/net | net.x | sysctl KEY not allowed in host net namespace
        mount | net.x | sysctl KEY is not in a separate kernel namespace (net)
        mount ipc | kernel.shm_rmid_forced | ok
        mount ipc | kernel/sem | ok
        mount ipc | fs.mqueue.msg_max | ok
        mount | kernel.sem | sysctl KEY is not in a separate kernel namespace (ipc)
        mount uts | kernel.domainname | ok
        mount | kernel.domainname | sysctl KEY is not in a separate kernel namespace (uts)
        mount uts | kernel.hostname | stands in conflict with hostname
        mount | user.max_net_namespaces | sysctl KEY is not in a separate kernel namespace (user)
        mount | kernel.core_pattern | sysctl KEY is not in a separate kernel namespace
        mount | vm.swappiness | sysctl KEY is not in a separate kernel namespace
        mount | net | sysctl KEY is not in a separate kernel namespace
        mount | | not the name of a sysctl
        mount network | net/../kernel/x | not the name of a sysctl
        mount network | net.//.kernel.x | not the name of a sysctl
        mount network | net//x | not the name of a sysctl";
    for [types, key, expected] in columns(table) {
        let mut spec = with("linux/namespaces", &namespaces(types).to_string());
        set(&mut spec, "linux/sysctl", json!({key: "1"}));
        let expected = match expected {
            "ok" => "ok".to_owned(),
            _ => format!(
                "linux.sysctl[{key:?}]: {}",
                expected.replace("KEY", &format!("{key:?}"))
            ),
        };
        assert_eq!(answer(&spec), expected, "{types} {key}");
    }
}

#[test]
fn devices_and_resources() {
    assert_answers(
        r#"
        linux/devices/0 | {"path": "/d", "type": "c", "major": 1, "minor": 3} | ok
        linux/devices/0 | {"path": "/d", "type": "u", "major": 4095, "minor": 1048575} | ok
        linux/devices/0 | {"path": "/d", "type": "p", "major": -1} | ok
        linux/devices/0 | {"path": "/d", "type": "p", "gid": 4294967295} | linux.devices[0].gid: 4294967295 is no group
        linux/devices/0 | {"path": "/d", "type": "a"} | linux.devices[0].type: a is not a type of device
        linux/devices/0 | {"path": "/d", "type": "b", "major": 4096} | linux.devices[0].major: 4096 is not a major number
        linux/devices/0 | {"path": "d", "type": "c"} | linux.devices[0].path: d is not an absolute path
        linux/resources/devices/0 | {"allow": true, "access": "rwm", "major": -1} | ok
        linux/resources/devices/0 | {"access": "rx"} | linux.resources.devices[0].access: "rx" is not of r, w and m
        linux/resources/devices/0 | {"type": "p"} | linux.resources.devices[0].type: p is not a type of rule
        linux/resources/devices/0 | {"minor": -2} | linux.resources.devices[0].minor: not a device number
        linux/resources/hugepageLimits/0 | {"pageSize": "2MB", "limit": 18446744073709551615} | ok
        linux/resources/hugepageLimits/0 | {"pageSize": "../2MB"} | linux.resources.hugepageLimits[0].pageSize: "../2MB" is not a size
        linux/resources/rdma | {"mlx": {"hcaHandles": 0}} | ok
        linux/resources/rdma | {"mlx": {}} | linux.resources.rdma["mlx"]: needs hcaHandles or hcaObjects
        linux/resources/rdma | {"a b": {"hcaHandles": 1}} | linux.resources.rdma["a b"]: not the name of a device
        linux/resources/unified | {"memory.max": "1"} | ok
        linux/resources/unified | {"../x": "1"} | linux.resources.unified["../x"]: not the name of a file
        "#,
    );
}

#[test]
fn the_rest_of_linux() {
    assert_answers(
        r#"
        linux/maskedPaths | ["/proc/x"] | ok
        linux/maskedPaths | ["/a", "/b/.."] | linux.maskedPaths[1]: the whole root cannot be masked
        linux/maskedPaths | ["/a", "x"] | linux.maskedPaths[1]: x is not an absolute path
        linux/readonlyPaths | ["/"] | ok
        linux/readonlyPaths | ["/\u0000"] | linux.readonlyPaths[0]: contains a NUL byte
        linux/rootfsPropagation | "rslave" | ok
        linux/rootfsPropagation | "" | ok
        linux/rootfsPropagation | "ro" | linux.rootfsPropagation: "ro" is not a propagation
        linux/cgroupsPath | "a\u0000" | linux.cgroupsPath: contains a NUL byte
        linux/seccomp | {"defaultAction": "SCMP_ACT_ALLOW"} | ok
        linux/intelRdt | {"closID": "a/b"} | linux.intelRdt.closID: "a/b" is not the name of a class
        linux/intelRdt | {"closID": ".."} | linux.intelRdt.closID: ".." is not the name of a class
        linux/intelRdt | {"closID": "/", "schemata": ["L3:0=f"], "enableMonitoring": true} | ok
        linux/intelRdt | {"schemata": ["L3:0=f\nMB:0=9"]} | linux.intelRdt: "L3:0=f\nMB:0=9" is more than one line
        linux/intelRdt | {"schemata": [""]} | linux.intelRdt.schemata[0]: empty
        linux/intelRdt | {"memBwSchema": "L3:0=f"} | linux.intelRdt.memBwSchema: "L3:0=f" does not begin with MB:
        linux/memoryPolicy | {"mode": "MPOL_BIND", "nodes": "0"} | ok
        linux/memoryPolicy | {"mode": "MPOL_DEFAULT", "nodes": "0"} | linux.memoryPolicy.nodes: MPOL_DEFAULT takes none
        linux/personality | {"domain": "LINUX32", "flags": []} | ok
        linux/personality | {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]} | linux.personality.flags[0]: "ADDR_NO_RANDOMIZE": no flag is supported
        linux/netDevices | {"eth0": {}} | linux.netDevices."eth0": needs a network namespace
        linux | {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "network"}], "netDevices": {"eth0": {}, "eth1": {"name": "lan%d"}, "eth2": {"name": "lan%d"}}} | ok
        linux | {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "network"}], "netDevices": {"eth0": {"name": "a/b"}}} | linux.netDevices."eth0": "a/b" is not the name of an interface
        linux | {"namespaces": [{"type": "mount"}, {"type": "uts"}, {"type": "network"}], "netDevices": {"eth0": {"name": "sixteen-letters!"}}} | linux.netDevices."eth0": "sixteen-letters!" is not the name of an interface
        linux/netDevices | {} | ok
        "#,
    );
}

/// Lines of `property below linux.seccomp | value | answer`, for a default action.
fn assert_filters(default: &str, table: &str) {
    for [pointer, value, expected] in columns(table) {
        let mut spec = with(&format!("linux/seccomp/{pointer}"), value);
        set(&mut spec, "linux/seccomp/defaultAction", json!(default));
        if let Some(entry) = spec.pointer_mut("/linux/seccomp/syscalls/0") {
            entry["action"] = json!("SCMP_ACT_ERRNO");
            entry
                .as_object_mut()
                .unwrap()
                .entry("names")
                .or_insert(json!(["read"]));
        }
        assert_eq!(answer(&spec), expected, "{pointer} = {value}");
    }
}

#[test]
fn seccomp_profiles() {
    assert_filters(
        "SCMP_ACT_ERRNO",
        r#"
        defaultErrnoRet | 4095 | ok
        defaultErrnoRet | 4096 | linux.seccomp.defaultErrnoRet: 4096 is above 4095
        architectures | ["SCMP_ARCH_X86", "SCMP_ARCH_RISCV64"] | ok
        flags | ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"] | ok
        listenerPath | "/run/agent" | ok
        listenerPath | "agent" | linux.seccomp.listenerPath: agent is not an absolute path
        listenerMetadata | "x" | linux.seccomp.listenerMetadata: needs listenerPath
        syscalls/0/names | ["read", "no such call"] | ok
        syscalls/0/names | [] | linux.seccomp.syscalls[0].names: at least one is required
        syscalls/0/names | ["read", ""] | linux.seccomp.syscalls[0].names[1]: empty
        syscalls/0/errnoRet | 4095 | ok
        syscalls/0/errnoRet | 4096 | linux.seccomp.syscalls[0].errnoRet: 4096 is above 4095
        syscalls/0/args | [{"index": 5, "value": 0, "op": "SCMP_CMP_EQ"}] | ok
        syscalls/0/args | [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}] | linux.seccomp.syscalls[0].args[0].index: 6, but calls have 6 arguments
    "#,
    );
    assert_filters(
        "SCMP_ACT_TRACE",
        "
        defaultErrnoRet | 65535 | ok
        defaultErrnoRet | 65536 | linux.seccomp.defaultErrnoRet: 65536 is above 65535
    ",
    );
    assert_filters(
        "SCMP_ACT_KILL",
        "
        defaultErrnoRet | 1 | linux.seccomp.defaultErrnoRet: SCMP_ACT_KILL returns no errno
    ",
    );
    assert_filters(
        "SCMP_ACT_NOTIFY",
        r#"
        listenerPath | "/run/agent" | ok
        listenerPath | "" | linux.seccomp.listenerPath: required for SCMP_ACT_NOTIFY
        flags | [] | linux.seccomp.listenerPath: required for SCMP_ACT_NOTIFY
    "#,
    );
    for (property, word) in [
        ("defaultAction", "SCMP_ACT_NONE"),
        ("architectures/0", "SCMP_ARCH_NONE"),
        ("flags/0", "SECCOMP_FILTER_FLAG_NONE"),
        ("syscalls/0/action", "SCMP_ACT_NONE"),
        ("syscalls/0/args/0/op", "SCMP_CMP_NONE"),
    ] {
        let mut spec = with("linux/seccomp", r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#);
        let rule = json!([{"names": ["read"], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]}]);
        set(&mut spec, "linux/seccomp/syscalls", rule);
        set(&mut spec, &format!("linux/seccomp/{property}"), json!(word));
        let answer = answer(&spec);
        let path = property.replace("/0", "[0]").replace('/', ".");
        assert!(answer.contains(&path) && answer.contains(word), "{answer}");
    }
}

#[test]
fn what_oci_spec_rejects_is_mended() {
    let sets = r#"{"bounding": ["CAP_NEW", "CAP_KILL"], "ambient": ["CAP_KILL"]}"#;
    let Loaded { spec, warnings, .. } = loaded(&with("process/capabilities", sets));
    let sets = spec
        .process()
        .as_ref()
        .unwrap()
        .capabilities()
        .as_ref()
        .unwrap();
    assert_eq!(sets.bounding().as_ref().unwrap().len(), 1);
    assert_eq!(sets.ambient().as_ref().unwrap().len(), 1);
    assert_eq!(
        warnings,
        ["process.capabilities.bounding: unknown \"CAP_NEW\", left out"]
    );
    let table = r#"
        process/user | null
        linux/uidMappings | [{"containerID": 0, "hostID": null, "size": 1}]
        process/scheduler | {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
        process/scheduler | {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_DL_OVERRUN"]}
        process/execCPUAffinity | {"initial": "0-1", "final": ""}
        linux/resources/hugepageLimits | [{"pageSize": "2MB", "limit": 18446744073709551615}]
        windows | 1"#;
    for [pointer, value] in columns(table) {
        assert!(
            loaded(&with(pointer, value)).warnings.is_empty(),
            "{pointer}"
        );
    }
}

#[test]
fn a_pids_limit_of_zero_is_a_limit() {
    for (pids, expected) in [
        ("{}", None),
        (r#"{"limit": null}"#, None),
        (r#"{"limit": 0}"#, Some(0)),
        (r#"{"limit": 5}"#, Some(5)),
    ] {
        let spec = loaded(&with("linux/resources/pids", pids)).spec;
        let resources = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
        assert_eq!(resources.pids().map(|pids| pids.limit()), expected);
    }
}

#[test]
fn what_is_empty_is_absent() {
    let mut spec = with("linux/namespaces/0/path", r#""""#);
    for pointer in [
        "linux/cgroupsPath",
        "linux/rootfsPropagation",
        "hostname",
        "domainname",
    ] {
        set(&mut spec, pointer, json!(""));
    }
    let spec = loaded(&spec).spec;
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.namespaces().as_ref().unwrap()[0].path().is_none());
    assert!(linux.cgroups_path().is_none() && linux.rootfs_propagation().is_none());
    assert!(spec.hostname().is_none() && spec.domainname().is_none());
}

/// Lines of `document | error`.
#[test]
fn errors_name_the_property() {
    let table = r#"
        {"process": {"user": {}, "args": [1]}} | process.args[0]: invalid type: integer `1`, expected a string at line 1 column 35
        {"process": {"env": null, "args": [1]}} | process.args[0]: invalid type: integer `1`, expected a string
        {"process": {}} | process: missing field `cwd`
        {"root": {"path": "a", "path": "b"}} | root: duplicate field `path` at line 1 column 29
        { | EOF while parsing an object at line 1 column 1
        []x | trailing characters at line 1 column 3"#;
    for [json, expected] in columns(table) {
        let error = parse_spec(json.as_bytes()).unwrap_err();
        assert_eq!(format!("{error:#}"), expected, "{json}");
    }
}

#[test]
fn a_process_can_stand_alone() {
    let json = br#"{"args":["ps"],"cwd":"/","capabilities":{"effective":["CAP_X"]}}"#;
    let loaded = process(json).unwrap();
    assert_eq!(
        loaded.warnings,
        ["capabilities.effective: unknown \"CAP_X\", left out"]
    );
    assert!(check_process(&loaded.process).is_ok());
    assert!(process(b"{}").is_err());
}

#[test]
fn only_an_ordinary_file_is_read() {
    let bundle = std::env::temp_dir().join(format!("rt-load-{}", std::process::id()));
    std::fs::create_dir(&bundle).unwrap();
    let file = bundle.join("config.json");
    let error = || format!("{:#}", load(&bundle, None).unwrap_err());
    let missing = error();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let fifo = error();
    std::fs::remove_file(&file).unwrap();
    std::fs::File::create(&file)
        .unwrap()
        .set_len(LIMIT + 1)
        .unwrap();
    let large = error();
    std::fs::write(&file, serde_json::to_vec(&base()).unwrap()).unwrap();
    let loaded = load(&bundle, None);
    std::fs::remove_dir_all(&bundle).unwrap();
    let prefix = format!("config.json in {}: ", bundle.display());
    assert_eq!(
        missing,
        format!("{prefix}No such file or directory (os error 2)")
    );
    assert_eq!(fifo, format!("{prefix}not a regular file"));
    assert_eq!(large, format!("{prefix}larger than 16 MiB"));
    assert!(loaded.is_ok());
}
