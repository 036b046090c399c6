//! Fields of the configuration whose effect no other file shows.

use std::fs;

use serde_json::json;

use crate::harness::{Bundle, proc_status};

#[test]
fn the_domain_name_is_the_configured_one() {
    let bundle = Bundle::busybox().config(|c| c["domainname"] = "rt.example".into());
    let done = bundle.args(["cat", "/proc/sys/kernel/domainname"]).run().success();
    assert_eq!(done.stdout, "rt.example\n");
}

/// capabilities(7): bits of `/proc/PID/status`.
const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const SETUID: u64 = 1 << 7;

#[test]
fn each_set_of_capabilities_holds_what_was_asked_for() {
    let bundle = Bundle::busybox().args(["sleep", "100"]).config(|c| {
        c["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        c["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN"],
            "inheritable": ["CAP_KILL", "CAP_SETUID"],
            "ambient": ["CAP_KILL"],
        });
    });
    let c = bundle.create();
    let sets = || {
        ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"]
            .map(|set| u64::from_str_radix(&proc_status(c.pid(), set), 16).unwrap())
    };
    let bounding = CHOWN | KILL | SETUID;
    assert_eq!(sets(), [bounding, CHOWN | KILL, CHOWN, KILL | SETUID, KILL]);
    c.start();
    // Of an ordinary user's sets execve(2) keeps those.
    assert_eq!(sets(), [bounding, KILL, KILL, KILL | SETUID, KILL]);
}

#[test]
fn no_new_privileges_is_set_if_it_is_asked_for() {
    for (asked, shown) in [(true, "1"), (false, "0")] {
        let bundle = Bundle::busybox().args(["sleep", "100"]);
        let c = bundle.config(|c| c["process"]["noNewPrivileges"] = asked.into()).start();
        assert_eq!(proc_status(c.pid(), "NoNewPrivs"), shown);
    }
}

#[test]
fn sysctls_hold_in_the_container_and_not_on_the_host() {
    let files = [
        ("net.ipv4.ip_unprivileged_port_start", "net/ipv4/ip_unprivileged_port_start", "81"),
        ("kernel/shmmni", "kernel/shmmni", "99"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max", "7"),
        ("kernel.domainname", "kernel/domainname", "rt.example"),
    ];
    let of_host =
        || files.map(|(_, file, _)| fs::read_to_string(format!("/proc/sys/{file}")).unwrap());
    let before = of_host();
    let sysctl: serde_json::Map<_, _> =
        files.iter().map(|(key, _, value)| ((*key).to_owned(), json!(value))).collect();
    let paths = files.map(|(_, file, _)| format!("/proc/sys/{file}"));
    let bundle = Bundle::busybox().config(|c| c["linux"]["sysctl"] = sysctl.into());
    let done = bundle.args(["cat".to_owned()].iter().chain(&paths)).run().success();
    assert_eq!(done.stdout, "81\n99\n7\nrt.example\n");
    assert_eq!(of_host(), before);
}

#[test]
fn the_root_has_the_propagation_that_was_asked_for() {
    for (word, mark) in [
        ("shared", " shared:"),
        ("rshared", " shared:"),
        ("unbindable", " unbindable "),
        ("runbindable", " unbindable "),
        ("private", ""),
        ("rprivate", ""),
        ("slave", ""),
        ("rslave", ""),
    ] {
        let bundle = Bundle::busybox().args(["cat", "/proc/self/mountinfo"]);
        let done = bundle.config(|c| c["linux"]["rootfsPropagation"] = word.into()).run().success();
        let root = done.stdout.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
        let shown = [" shared:", " unbindable "].map(|mark| root.contains(mark));
        assert_eq!(shown, [" shared:", " unbindable "].map(|one| one == mark), "{word}: {root}");
    }
}

#[test]
fn a_configuration_that_changes_after_create_changes_nothing() {
    let c = Bundle::busybox().args(["echo", "as created"]).create();
    let path = c.bundle.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("as created", "changed")).unwrap();
    assert_eq!(c.finish(), (0, "as created\n".to_owned()));
    fs::remove_file(&path).unwrap();
    assert_eq!(c.status(), "stopped");
    c.delete();
}
