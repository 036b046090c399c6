//! The same configuration under runc and under the runtime under test: what is seen inside is the
//! same. Debian's runc is 1.1.5; where it lacks something, what has to be seen is stated here.
//! `namespaces.rs` does the same for the combinations of namespaces.

mod rights;

use std::fs;
use std::panic::catch_unwind;

use serde_json::{Value, json};

use crate::harness::{Bundle, Look, View, difference_to_runc, user as ordinary};

/// Makes a configuration of the default one.
type Change = fn(Bundle) -> Bundle;

/// What a configuration has to look like inside.
enum As {
    Runc,
    /// Why runc 1.1.5 is no model, and what has to be seen: lines by how they begin and by what
    /// is in them.
    Stated(&'static str, &'static [(&'static str, &'static str)]),
}

struct Case {
    name: &'static str,
    change: Change,
    looks: As,
}

const fn like_runc(name: &'static str, change: Change) -> Case {
    Case { name, change, looks: As::Runc }
}

const fn stated(
    name: &'static str,
    change: Change,
    why: &'static str,
    lines: &'static [(&'static str, &'static str)],
) -> Case {
    Case { name, change, looks: As::Stated(why, lines) }
}

const CASES: &[Case] = &[
    like_runc("what runc's spec writes", |b| b),
    like_runc("a writable root, no pivot_root", |b| b.writable().options(["--no-pivot"])),
    like_runc("a user with groups and a umask", user),
    like_runc("five different sets of capabilities", capabilities),
    like_runc("ambient capabilities of a user", ambient),
    like_runc("no capabilities at all", no_capabilities),
    like_runc("limits and badness", limits),
    like_runc("environment and directory", environment),
    like_runc("bind mounts of all kinds", binds),
    like_runc("recursive attributes", recursive),
    like_runc("tmpfs of all kinds", tmpfs),
    like_runc("a tmpfs with what it covers", copy_up),
    like_runc("other file systems and odd destinations", file_systems),
    like_runc("kernel file systems with other options", kernel_file_systems),
    like_runc("mounts on mounts, in the order of the list", stacked),
    like_runc("devices", devices),
    like_runc("devices in a user namespace", bound_devices),
    like_runc("a user namespace of one id", |b| single_id(b.user_namespace())),
    like_runc("a user namespace of many ranges", many_ranges),
    like_runc("a user with groups in a user namespace", |b| user(b.user_namespace())),
    like_runc("capabilities in a user namespace", |b| capabilities(b.user_namespace())),
    like_runc("bind mounts in a user namespace", binds_with_users),
    like_runc("tmpfs of all kinds in a user namespace", |b| tmpfs(b.user_namespace())),
    like_runc("settings of the kernel in a user namespace", |b| sysctls(b.user_namespace())),
    like_runc("paths in a user namespace", |b| paths(b.user_namespace())),
    like_runc("limits in a user namespace", |b| limits(b.user_namespace())),
    like_runc("an ordinary user", Bundle::of_user),
    like_runc("an ordinary user with more ids", Bundle::of_user_with_more_ids),
    stated(
        "an ordinary user who is not root inside",
        |b| {
            let user = json!({ "uid": 1000, "gid": 1000 });
            process(b.of_user().maps(&[[1000, ordinary::ID, 1]]), json!({ "user": user }))
        },
        "runc wants a root in each user namespace",
        &[("uid=1000", "gid=1000")],
    ),
    stated(
        "an ordinary user with more ids and groups",
        |b| user(b.of_user_with_more_ids()),
        "runc has no groups for ordinary users",
        &[("uid=7", "groups=9,10"), ("Groups:", "9 10")],
    ),
    stated(
        "a time namespace",
        in_another_time,
        "runc has it since 1.2",
        &[("monotonic", " 1000 "), ("boottime", " 2000 ")],
    ),
    like_runc("no mount at /dev", |b| b.without_mount("/dev").writable()),
    like_runc("masked and read-only paths", paths),
    like_runc("nothing masked, nothing read-only", no_paths),
    like_runc("settings of the kernel", sysctls),
    like_runc("a part of the CPUs", |b| b.resources(json!({ "cpu": { "cpus": "0" } }))),
    like_runc("a slave root", |b| propagation(b, "rslave")),
    like_runc("a private root", |b| propagation(b, "private")),
    stated(
        "a shared root",
        |b| propagation(b, "shared"),
        "runc leaves it private before 1.2.7",
        &[("/ on ", r#"["shared"]"#)],
    ),
    stated(
        "an unbindable root",
        |b| propagation(b, "unbindable"),
        "runc makes the host's root unbindable, of which it then cannot bind",
        &[("/ on ", r#"["unbindable"]"#)],
    ),
    stated(
        "a policy, a priority for input and output, another machine",
        scheduled,
        "runc has these since 1.2",
        &[("personality ", "00000008"), ("policy ", "5 0 3, best-effort: prio 6")],
    ),
    stated(
        "a domain name",
        |b| b.config(|c| c["domainname"] = "example.org".into()),
        "runc has it since 1.2",
        &[("domain ", "example.org")],
    ),
    stated(
        "a mount without a source, one without symbolic links",
        unusual_mounts,
        "runc gives the kernel an empty source, and 1.1.5 takes nosymfollow for data",
        &[("/tmp on /,", "tmpfs none"), ("/root on /,", "rw,relatime,nosymfollow")],
    ),
    stated(
        "duplicate variables, an empty home",
        duplicates,
        "runc 1.1.5 leaves the last value in the first one's place",
        &[("environment A=", "3"), ("environment HOME=", "/root")],
    ),
];

/// No group but root's is known: the terminals cannot have one of their own.
fn single_id(bundle: Bundle) -> Bundle {
    bundle.maps(&[[0, 100_000, 1]]).config(|c| {
        for mount in c["mounts"].as_array_mut().unwrap() {
            if mount["type"] == "devpts" {
                mount["options"].as_array_mut().unwrap().retain(|word| word != "gid=5");
            }
        }
    })
}

/// The user's ids are in the last one.
fn many_ranges(bundle: Bundle) -> Bundle {
    let ranges = [[0, 100_000, 1], [1, 200_000, 6], [100, 300_000, 50], [7, 100_001, 10]];
    user(bundle.user_namespace().maps(&ranges))
}

fn in_another_time(bundle: Bundle) -> Bundle {
    let bundle = bundle.namespaces(&["pid", "network", "ipc", "uts", "mount", "time"]);
    let offsets = json!({ "monotonic": { "secs": 1000 }, "boottime": { "secs": 2000 } });
    linux(bundle, json!({ "timeOffsets": offsets }))
}

fn scheduled(bundle: Bundle) -> Bundle {
    let scheduler = json!({ "policy": "SCHED_BATCH", "nice": 5 });
    let priority = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    let bundle = process(bundle, json!({ "scheduler": scheduler, "ioPriority": priority }));
    linux(bundle, json!({ "personality": { "domain": "LINUX32" } }))
}

fn unusual_mounts(bundle: Bundle) -> Bundle {
    let without_links = json!({ "destination": "/root", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosymfollow"] });
    mounts(bundle, json!([{ "destination": "/tmp", "type": "tmpfs" }, without_links]))
}

fn duplicates(bundle: Bundle) -> Bundle {
    bundle.config(|c| {
        let env = c["process"]["env"].as_array_mut().unwrap();
        env.extend(["A=1", "B=2", "A=3", "HOME="].map(Value::from));
    })
}

fn process(bundle: Bundle, fields: Value) -> Bundle {
    bundle.config(|c| {
        for (name, value) in fields.as_object().unwrap() {
            c["process"][name] = value.clone();
        }
    })
}

fn linux(bundle: Bundle, fields: Value) -> Bundle {
    bundle.config(|c| {
        for (name, value) in fields.as_object().unwrap() {
            c["linux"][name] = value.clone();
        }
    })
}

fn mounts(bundle: Bundle, list: Value) -> Bundle {
    list.as_array().unwrap().iter().cloned().fold(bundle, Bundle::mount)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

fn user(bundle: Bundle) -> Bundle {
    let user = json!({ "uid": 7, "gid": 8, "additionalGids": [9, 10], "umask": 0o27 });
    process(bundle, json!({ "user": user, "cwd": "/var" }))
}

/// runc's exec does not heed it before 1.2.
fn without_umask(bundle: Bundle) -> Bundle {
    bundle.config(|c| {
        c["process"]["user"].as_object_mut().unwrap().remove("umask");
    })
}

fn capabilities(bundle: Bundle) -> Bundle {
    let sets = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_SETUID"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_KILL", "CAP_NET_RAW"],
        "inheritable": ["CAP_NET_RAW"],
        "ambient": []
    });
    process(bundle, json!({ "capabilities": sets, "noNewPrivileges": false }))
}

fn ambient(bundle: Bundle) -> Bundle {
    let all = ["CAP_KILL", "CAP_NET_RAW"];
    let sets = json!({ "bounding": all, "permitted": all, "effective": all, "inheritable": all,
        "ambient": ["CAP_NET_RAW"] });
    process(user(bundle), json!({ "capabilities": sets, "noNewPrivileges": false }))
}

fn no_capabilities(bundle: Bundle) -> Bundle {
    bundle.config(|c| {
        let process = c["process"].as_object_mut().unwrap();
        process.remove("capabilities");
        process.remove("noNewPrivileges");
    })
}

fn limits(bundle: Bundle) -> Bundle {
    let limits = json!([
        { "type": "RLIMIT_NOFILE", "soft": 64, "hard": 128 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 4096 },
        { "type": "RLIMIT_NPROC", "soft": 500, "hard": 500 },
        { "type": "RLIMIT_FSIZE", "soft": 1 << 20, "hard": 1 << 30 },
        { "type": "RLIMIT_STACK", "soft": 1 << 22, "hard": 1 << 23 },
        { "type": "RLIMIT_CPU", "soft": 100, "hard": 200 }
    ]);
    process(bundle, json!({ "rlimits": limits, "oomScoreAdj": 321 }))
}

/// Now and then runc's exec has the hard limit of open files as the soft one: Go's runtime raises it.
fn limits_of_exec(bundle: Bundle) -> Bundle {
    limits(bundle).config(|c| c["process"]["rlimits"][0]["soft"] = json!(128))
}

fn environment(bundle: Bundle) -> Bundle {
    let bundle = bundle.file("/etc/passwd", "root:x:0:0::/from/passwd:/bin/sh\n");
    bundle.directory("/work/here").config(|c| {
        let process = &mut c["process"];
        process["cwd"] = json!("/work/here");
        let env = process["env"].as_array_mut().unwrap();
        env.extend(["EMPTY=", "EQUAL=a=b", "SPACE= a ", "UTF=\u{e4}"].map(Value::from));
    })
}

fn binds(bundle: Bundle) -> Bundle {
    let source = bundle.beside("source");
    fs::create_dir_all(source.join("directory")).unwrap();
    fs::write(source.join("file"), "").unwrap();
    let bind = |destination: &str, name: &str, options: &[&str]| {
        json!({ "destination": destination, "type": "none", "source": source.join(name),
            "options": options })
    };
    let bundle = bundle.writable();
    mounts(
        bundle,
        json!([
            bind("/made/plain", "directory", &["bind"]),
            bind("/made/file", "file", &["bind", "ro"]),
            bind("/made/flags", "directory", &["rbind", "nosuid", "nodev", "noexec", "ro"]),
            bind("/made/rw", "directory", &["rbind", "rw", "noatime"]),
            bind("/made/sized", "directory", &["bind", "nodiratime", "size=1m", "mode=700"]),
            bind("/made/private", "directory", &["rbind", "rprivate"]),
            bind("/made/slave", "directory", &["rbind", "rslave", "ro"]),
            bind("/made/shared", "directory", &["bind", "shared"]),
            bind("/made/both", "directory", &["bind", "shared", "slave"]),
            bind("/made/unbindable", "directory", &["bind", "unbindable"]),
        ]),
    )
}

/// Before 1.2 runc has no rights for other access times there.
fn binds_with_users(bundle: Bundle) -> Bundle {
    binds(bundle.user_namespace()).config(|c| {
        let noatime = |mount: &Value| {
            mount["options"].as_array().is_some_and(|all| {
                ["noatime", "nodiratime"].iter().any(|word| all.contains(&json!(word)))
            })
        };
        c["mounts"].as_array_mut().unwrap().retain(|mount| !noatime(mount));
    })
}

fn recursive(bundle: Bundle) -> Bundle {
    let bundle = bundle.directory("/host/ro").directory("/host/many").directory("/host/times");
    mounts(
        bundle,
        json!([
            mount("/host/ro", "none", "/sys", &["rbind", "rro"]),
            mount("/host/many", "none", "/sys", &["rbind", "rnosuid", "rnodev", "rnoexec", "ro"]),
            mount("/host/times", "none", "/sys", &["rbind", "rnoatime", "rnodiratime"]),
        ]),
    )
}

fn tmpfs(bundle: Bundle) -> Bundle {
    mounts(
        bundle.writable(),
        json!([
            mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "size=64k"]),
            mount("/root", "tmpfs", "tmpfs", &["ro"]),
            mount("/root/in/side", "tmpfs", "tmpfs", &["ro", "mode=711", "uid=3", "gid=4"]),
            mount("/made/new", "tmpfs", "tmpfs", &["noexec", "strictatime", "nr_inodes=100"]),
            mount("/made/private", "tmpfs", "tmpfs", &["rprivate", "noatime", "mode=1777"]),
            mount("/made/shared", "tmpfs", "tmpfs", &["shared", "sync"]),
        ]),
    )
}

fn copy_up(bundle: Bundle) -> Bundle {
    let bundle = bundle
        .file("/made/file", "text")
        .file("/made/deep/er/file", "text")
        .link("/made/link", "/nowhere");
    for (n, name) in ["file", "deep", "deep/er/file"].into_iter().enumerate() {
        let path = bundle.rootfs().join("made").join(name);
        std::os::unix::fs::chown(path, Some(n as u32 + 3), Some(n as u32 + 4)).unwrap();
    }
    mounts(
        bundle,
        json!([{ "destination": "/made", "type": "tmpfs", "source": "tmpfs",
            "options": ["tmpcopyup", "nosuid", "size=1m"] }]),
    )
}

fn file_systems(bundle: Bundle) -> Bundle {
    let bundle = bundle.link("/dangling", "/made/by/runtime").link("/to/tmp", "../tmp");
    for name in ["lower", "upper", "work"] {
        fs::create_dir_all(bundle.beside(name)).unwrap();
    }
    let layers = ["lower", "upper", "work"]
        .map(|name| format!("{name}dir={}", bundle.beside(name).display()));
    mounts(
        bundle.writable(),
        json!([
            { "destination": "/root", "type": "ramfs", "source": "ramfs", "options": ["nosuid"] },
            { "destination": "/var", "type": "overlay", "source": "overlay", "options": layers },
            { "destination": "tmp", "type": "tmpfs", "source": "relative" },
            { "destination": "/to/tmp", "type": "tmpfs", "source": "through" },
            { "destination": "/dangling", "type": "tmpfs", "source": "dangling" },
            { "destination": "/etc/../deep/er", "type": "tmpfs", "source": "dots" },
        ]),
    )
}

fn kernel_file_systems(bundle: Bundle) -> Bundle {
    bundle.config(|c| {
        for mount in c["mounts"].as_array_mut().unwrap() {
            mount["options"] = match mount["destination"].as_str().unwrap() {
                "/proc" => json!(["nosuid", "noexec", "nodev", "noatime"]),
                "/dev/pts" => json!(["newinstance", "ptmxmode=0600", "mode=0600"]),
                "/dev/mqueue" => json!(["ro"]),
                "/sys" => json!(["rw", "nosuid"]),
                "/sys/fs/cgroup" => json!(["rw"]),
                _ => continue,
            };
        }
    })
}

fn stacked(bundle: Bundle) -> Bundle {
    mounts(
        bundle,
        json!([
            mount("/tmp", "tmpfs", "one", &[]),
            mount("/tmp/in", "tmpfs", "two", &[]),
            mount("/tmp", "tmpfs", "three", &[]),
            mount("/tmp/in", "tmpfs", "four", &[]),
            mount("/dev/shm", "tmpfs", "five", &[]),
            mount("/sys/fs/cgroup", "tmpfs", "six", &[]),
        ]),
    )
}

fn devices(bundle: Bundle) -> Bundle {
    let devices = json!([
        { "path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o600,
          "uid": 3, "gid": 4 },
        { "path": "/dev/full", "type": "u", "major": 1, "minor": 7 },
        { "path": "/dev/fifo", "type": "p", "fileMode": 0o620 },
        { "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 }
    ]);
    linux(bundle, json!({ "devices": devices }))
}

/// runc wants the host to have a FIFO of that name.
fn bound_devices(bundle: Bundle) -> Bundle {
    devices(bundle).user_namespace().config(|c| {
        let list = c["linux"]["devices"].as_array_mut().unwrap();
        list.retain(|device| device["type"] != "p");
    })
}

fn paths(bundle: Bundle) -> Bundle {
    let bundle = bundle.file("/secret/key", "").file("/file", "").directory("/read/only");
    let masked = ["/secret", "/file", "/proc/keys", "/proc/keys", "/nowhere", "/sys/firmware"];
    let read_only = ["/read", "/proc/sys", "/proc/irq", "/nowhere", "/read/only", "/tmp"];
    linux(bundle.writable(), json!({ "maskedPaths": masked, "readonlyPaths": read_only }))
}

fn no_paths(bundle: Bundle) -> Bundle {
    linux(bundle, json!({ "maskedPaths": [], "readonlyPaths": null }))
}

fn sysctls(bundle: Bundle) -> Bundle {
    let sysctl = json!({ "kernel.msgmax": "4242", "net/ipv4/ip_unprivileged_port_start": "77" });
    linux(bundle, json!({ "sysctl": sysctl })).config(|c| c["hostname"] = "other".into())
}

fn propagation(bundle: Bundle, word: &str) -> Bundle {
    linux(bundle, json!({ "rootfsPropagation": word }))
}

fn lacks(Look(seen): &Look, lines: &[(&str, &str)], why: &str) -> String {
    let has = |(begin, part): &&(&str, &str)| {
        seen.iter().any(|line| line.strip_prefix(*begin).is_some_and(|rest| rest.contains(part)))
    };
    let lost: Vec<_> = lines.iter().filter(|line| !has(line)).collect();
    if lost.is_empty() { String::new() } else { format!("{lost:?} is not in {seen:#?}\n({why})") }
}

#[test]
fn everything_looks_inside_as_it_has_to() {
    let wrong: Vec<_> = CASES
        .iter()
        .filter_map(|case| {
            let bundle = || (case.change)(Bundle::busybox());
            let look = || match &case.looks {
                As::Runc => difference_to_runc(Look::of, bundle),
                As::Stated(why, lines) => lacks(&Look::of(bundle()), lines, why),
            };
            // One that does not run must not hide the others.
            let difference = catch_unwind(look).unwrap_or_else(|_| "it does not run".to_owned());
            (!difference.is_empty()).then(|| format!("{}:\n{difference}", case.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn exec_looks_inside_as_under_runc() {
    let changes: [(&str, Change); 6] = [
        ("default", |b| b),
        ("user", |b| without_umask(user(b))),
        ("capabilities", capabilities),
        ("ambient", |b| without_umask(ambient(b))),
        ("limits", limits_of_exec),
        ("environment", environment),
    ];
    for (name, change) in changes {
        let difference = difference_to_runc(Look::of_exec, || change(Bundle::busybox()));
        assert!(difference.is_empty(), "{name}\n{difference}");
    }
}

#[test]
fn the_default_looks_as_under_runc_on_every_kind_of_host() {
    for view in View::all() {
        for kinds in [&[][..], &["cgroup"]] {
            // There runc shows all groups of the host, and rt those of the container.
            if view == View::V2 && kinds.is_empty() {
                continue;
            }
            let namespaces = [&["pid", "network", "ipc", "uts", "mount"], kinds].concat();
            let difference = difference_to_runc(Look::of, || {
                Bundle::busybox().in_view(view).namespaces(&namespaces)
            });
            assert!(difference.is_empty(), "{view:?} {kinds:?}\n{difference}");
        }
    }
}
