//! Namespaces: which ones init is in, and what the world in them looks like, against runc.

use serde_json::json;

use crate::harness::{Bundle, Container, Host, assert_looks_as_under_runc, namespace_of};

const KINDS: [&str; 8] = ["pid", "net", "ipc", "uts", "mnt", "user", "cgroup", "time"];

/// Where one of init's namespaces comes from.
#[derive(Clone, Copy)]
enum From<'a> {
    Host,
    New,
    Joined(&'a Container),
}

/// Every namespace is the host's but for those in `exceptions`.
#[track_caller]
fn assert_namespaces(c: &Container, exceptions: &[(&str, From<'_>)]) {
    for kind in KINDS {
        let own = namespace_of(c.pid(), kind);
        let host = namespace_of("self", kind);
        let listed = exceptions.iter().find(|(name, _)| *name == kind);
        match listed.map_or(From::Host, |(_, from)| *from) {
            From::Host => assert_eq!(own, host, "{kind}: the host's"),
            From::New => assert_ne!(own, host, "{kind}: a new one"),
            From::Joined(donor) => {
                assert_eq!(own, namespace_of(donor.pid(), kind), "{kind}: the joined one");
            }
        }
    }
}

const ALL_NEW: [(&str, From<'static>); 5] = [
    ("pid", From::New),
    ("net", From::New),
    ("ipc", From::New),
    ("uts", From::New),
    ("mnt", From::New),
];

fn sleeper() -> Bundle {
    Bundle::busybox().args(["sleep", "1000"])
}

#[test]
fn five_new_namespaces_look_as_under_runc() {
    assert_namespaces(&sleeper().start(), &ALL_NEW);
    assert_looks_as_under_runc(Bundle::busybox);
}

#[test]
fn a_new_cgroup_namespace_looks_as_under_runc() {
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let c = sleeper().namespaces(&kinds).start();
    assert_namespaces(&c, &[&ALL_NEW[..], &[("cgroup", From::New)]].concat());
    assert_looks_as_under_runc(|| Bundle::busybox().namespaces(&kinds));
}

#[test]
fn in_a_new_cgroup_namespace_the_containers_cgroup_is_the_root() {
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let c = Bundle::busybox().namespaces(&kinds).args(["cat", "/proc/self/cgroup"]);
    for line in c.run().success().stdout.lines() {
        assert!(line.ends_with(":/"), "{line}");
    }
}

#[test]
fn a_new_user_namespace_with_all_others_looks_as_under_runc() {
    let bundle = |base: Bundle| {
        base.namespaces(&["pid", "network", "ipc", "uts", "mount", "cgroup"]).user_namespace()
    };
    let c = bundle(sleeper()).start();
    let more = [("cgroup", From::New), ("user", From::New)];
    assert_namespaces(&c, &[&ALL_NEW[..], &more].concat());
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", c.pid())).unwrap();
    let map: Vec<_> = map.split_whitespace().collect();
    assert_eq!(map, ["0", "100000", "65536"]);
    assert_looks_as_under_runc(|| bundle(Bundle::busybox()));
}

#[test]
fn in_a_new_user_namespace_root_owns_what_is_mounted_for_it() {
    let done = Bundle::busybox()
        .user_namespace()
        .args(["stat", "-c", "%u", "/dev/mqueue", "/dev/shm", "/dev", "/dev/pts/ptmx"])
        .run()
        .success();
    assert_eq!(done.stdout, "0\n0\n0\n0\n");
}

#[test]
fn the_hosts_pid_namespace_looks_as_under_runc() {
    let c = sleeper().without_namespace("pid").start();
    assert_namespaces(&c, &ALL_NEW[1..]);
    let shown = c.exec(["cat", &format!("/proc/{}/comm", c.pid())]).success();
    assert_eq!(shown.stdout, "sleep\n");
    assert_looks_as_under_runc(|| Bundle::busybox().without_namespace("pid"));
}

#[test]
fn the_hosts_network_and_ipc_look_as_under_runc() {
    Host::isolated(|| {
        let bundle = |base: Bundle| base.without_namespace("network").without_namespace("ipc");
        let c = bundle(sleeper()).start();
        assert_namespaces(&c, &[("pid", From::New), ("uts", From::New), ("mnt", From::New)]);
        assert_looks_as_under_runc(|| bundle(Bundle::busybox()));
    });
}

#[test]
fn only_a_mount_namespace_looks_as_under_runc() {
    let bundle = |base: Bundle| {
        base.namespaces(&["mount"]).config(|c| {
            c.as_object_mut().unwrap().remove("hostname");
        })
    };
    Host::isolated(|| {
        assert_namespaces(&bundle(sleeper()).start(), &[("mnt", From::New)]);
        assert_looks_as_under_runc(|| bundle(Bundle::busybox()));
    });
}

#[test]
fn a_joined_pid_namespace_with_a_new_mount_namespace_looks_as_under_runc() {
    let donor = sleeper().start();
    let bundle = |base: Bundle| base.joins("pid", &donor.namespace("pid"));
    let c = bundle(sleeper()).start();
    let joined = [&ALL_NEW[1..], &[("pid", From::Joined(&donor))]].concat();
    assert_namespaces(&c, &joined);
    let seen = c.exec(["cat", "/proc/1/comm"]).success();
    assert_eq!(seen.stdout, "sleep\n", "pid 1 is the donor's init");
    assert_looks_as_under_runc(|| bundle(Bundle::busybox()));
    assert_eq!(donor.status(), "running", "the donor is not touched by an end in its namespace");
}

#[test]
fn a_joined_network_namespace_looks_as_under_runc() {
    let donor = sleeper().start();
    let bundle = |base: Bundle| base.joins("network", &donor.namespace("net"));
    let joined = [&ALL_NEW[..1], &ALL_NEW[2..], &[("net", From::Joined(&donor))]].concat();
    assert_namespaces(&bundle(sleeper()).start(), &joined);
    assert_looks_as_under_runc(|| bundle(Bundle::busybox()));
}

#[test]
fn joined_ipc_and_uts_namespaces_look_as_under_runc() {
    let donor = sleeper().start();
    let bundle = |base: Bundle| {
        let joined = base.joins("ipc", &donor.namespace("ipc"));
        joined.joins("uts", &donor.namespace("uts")).config(|c| {
            c.as_object_mut().unwrap().remove("hostname");
        })
    };
    let from = From::Joined(&donor);
    let new = [ALL_NEW[0], ALL_NEW[1], ALL_NEW[4]];
    assert_namespaces(
        &bundle(sleeper()).start(),
        &[&new[..], &[("ipc", from), ("uts", from)]].concat(),
    );
    assert_looks_as_under_runc(|| bundle(Bundle::busybox()));
}

#[test]
fn a_joined_user_namespace_with_new_others_looks_as_under_runc() {
    let donor = sleeper().user_namespace().start();
    let bundle = |base: Bundle| base.user_namespace().joins("user", &donor.namespace("user"));
    let joined = [&ALL_NEW[..], &[("user", From::Joined(&donor))]].concat();
    assert_namespaces(&bundle(sleeper()).start(), &joined);
    assert_looks_as_under_runc(|| bundle(Bundle::busybox()));
}

#[test]
fn every_namespace_of_another_container_can_be_joined_but_mount() {
    let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
    let donor = sleeper().namespaces(&kinds).user_namespace().start();
    let names = [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")];
    let c = names
        .into_iter()
        .chain([("cgroup", "cgroup"), ("user", "user")])
        .fold(sleeper().user_namespace(), |bundle, (kind, link)| {
            bundle.joins(kind, &donor.namespace(link))
        })
        .config(|c| {
            c.as_object_mut().unwrap().remove("hostname");
        })
        .start();
    for kind in ["pid", "net", "ipc", "uts", "cgroup", "user"] {
        assert_eq!(namespace_of(c.pid(), kind), namespace_of(donor.pid(), kind), "{kind}");
    }
    assert_ne!(namespace_of(c.pid(), "mnt"), namespace_of(donor.pid(), "mnt"));
}

/// Debian's runc 1.1.5 knows no time namespaces: what has to hold is stated here.
fn in_another_time(bundle: Bundle) -> Bundle {
    bundle.config(|c| {
        c["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
        c["linux"]["timeOffsets"] = json!({
            "boottime": { "secs": 1_000_000, "nanosecs": 0 },
            "monotonic": { "secs": 1_000_000, "nanosecs": 0 }
        });
    })
}

#[test]
fn a_new_time_namespace_has_the_offsets_that_were_asked_for() {
    let c = in_another_time(sleeper()).start();
    assert_namespaces(&c, &[&ALL_NEW[..], &[("time", From::New)]].concat());
    let uptime = c.exec(["cat", "/proc/uptime"]).success().stdout;
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let host = std::fs::read_to_string("/proc/uptime").unwrap();
    let host: f64 = host.split(' ').next().unwrap().parse().unwrap();
    assert!((seconds - host - 1e6).abs() < 10.0, "{uptime}");
}

#[test]
fn a_time_namespace_can_be_joined() {
    let donor = in_another_time(sleeper()).start();
    let c = sleeper().joins("time", &donor.namespace("time")).start();
    assert_namespaces(&c, &[&ALL_NEW[..], &[("time", From::Joined(&donor))]].concat());
}

#[test]
fn a_namespace_path_of_the_wrong_type_is_refused() {
    for (kind, wrong) in [
        ("pid", "net"),
        ("network", "pid"),
        ("ipc", "uts"),
        ("uts", "ipc"),
        ("mount", "uts"),
        ("user", "net"),
        ("cgroup", "net"),
        ("time", "net"),
    ] {
        Bundle::busybox().joins(kind, &format!("/proc/self/ns/{wrong}")).refused();
    }
}

#[test]
fn a_namespace_path_that_is_no_namespace_is_refused() {
    for path in ["/no/such/path", "/etc/hostname", "/proc/self/ns", "relative/path", "/dev/null"] {
        for kind in ["pid", "network", "ipc"] {
            Bundle::busybox().joins(kind, path).refused();
        }
    }
}

#[test]
fn the_same_type_twice_is_refused() {
    Bundle::busybox().namespaces(&["pid", "mount", "pid"]).refused();
}

#[test]
fn loopback_is_up_in_a_new_network_namespace() {
    let done = Bundle::busybox().args(["ip", "-o", "address", "show", "lo"]).run().success();
    assert!(done.stdout.contains("127.0.0.1/8"), "{done}");
}
