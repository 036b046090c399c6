//! Devices that a container may open.

use std::fs;

use serde_json::{Value, json};

use super::Setup;
use crate::harness::{Bundle, until};

/// A container that tries to read and to write the kernel's log, which a process with these
/// capabilities may do.
fn reader_and_writer(setup: Setup, rules: Value) -> Bundle {
    setup
        .bundle()
        .resources(json!({ "devices": rules }))
        .with_capabilities(&["CAP_MKNOD", "CAP_SYSLOG"])
        .script(
            "cd /dev; mknod log c 1 11 || exit 1
            (: <log) && echo reads; (: >log) && echo writes; true",
        )
}

#[test]
fn a_device_can_be_opened_as_its_rules_say() {
    let log = |access: &str| {
        json!([{ "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 11, "access": access }])
    };
    for setup in Setup::all() {
        for (rules, opens, denied) in [
            (json!([{ "allow": true, "access": "rwm" }]), "reads\nwrites\n", 0),
            (json!([{ "allow": false, "access": "rwm" }]), "", 2),
            (log("rm"), "reads\n", 1),
            (log("wm"), "writes\n", 1),
            (log("rwm"), "reads\nwrites\n", 0),
        ] {
            let done = reader_and_writer(setup, rules.clone()).run().success();
            assert_eq!(done.stdout, opens, "{setup:?} {rules}: {done}");
            let refusals = done.stderr.matches("Operation not permitted").count();
            assert_eq!(refusals, denied, "{setup:?} {rules}: {done}");
        }
    }
}

#[test]
fn the_default_devices_can_be_opened_whatever_the_rules_say() {
    for setup in Setup::all() {
        let done = setup
            .bundle()
            .resources(json!({ "devices": [{ "allow": false, "access": "rwm" }] }))
            .script("cat /dev/null && echo null; head -c 1 /dev/zero | wc -c; echo x >/dev/full")
            .run();
        assert_eq!(done.stdout, "null\n1\n", "{setup:?}: {done}");
        assert!(done.stderr.contains("No space left"), "{setup:?}: {done}");
    }
}

#[test]
fn what_can_be_opened_changes_with_an_update() {
    for setup in Setup::all() {
        let none = json!([{ "allow": false, "access": "rwm" }]);
        let script = "mknod /dev/log c 1 11; echo made; exec sleep 1000";
        let c = reader_and_writer(setup, none.clone()).script(script).start();
        until("the node is there", || c.output() == "made\n");
        let update = |rules: Value| {
            let path = c.bundle.beside("resources.json");
            fs::write(&path, json!({ "devices": rules }).to_string()).unwrap();
            c.rt(["update", &c.id, "-r", path.to_str().unwrap()]).run().success();
        };
        let open = || c.exec(["sh", "-c", ": </dev/log"]);
        open().says(&["Operation not permitted"]);
        update(json!([{ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }]));
        open().success();
        update(none);
        open().says(&["Operation not permitted"]);
    }
}

/// Nodes by the numbers of devices that every host has, in a container whose process may make them.
fn opener(setup: Setup, rules: Value) -> Bundle {
    let bundle = setup.bundle().resources(json!({ "devices": rules }));
    bundle.with_capabilities(&["CAP_MKNOD"]).script(
        "cd /dev; mknod terminal c 5 1; mknod tun c 10 200; mknod empty c 1 3; echo made
        exec sleep 1000",
    )
}

/// Which of them can be opened by a new process.
fn opened(c: &crate::harness::Container) -> String {
    until("the nodes are there", || c.output() == "made\n");
    let script =
        "cd /dev; for n in terminal tun empty; do (: <$n) 2>/dev/null && echo $n; done; true";
    c.exec(["sh", "-c", script]).success().stdout
}

#[test]
fn the_default_list_does_not_have_the_hosts_console() {
    for setup in Setup::all() {
        for rules in [
            json!([{ "allow": false, "access": "rwm" }]),
            json!([{ "allow": false, "type": "c", "access": "rwm" },
                { "allow": false, "type": "b", "access": "rwm" }]),
            json!([]),
        ] {
            let c = opener(setup, rules.clone()).start();
            let opened = opened(&c);
            assert!(!opened.contains("terminal"), "{setup:?} {rules}: {opened}");
            assert!(opened.contains("empty"), "{setup:?} {rules}: {opened}");
        }
    }
}

#[test]
fn what_is_denied_by_its_number_is_not_in_the_default_list() {
    let deny = |major: i64, minor: i64| json!({ "allow": false, "type": "c", "major": major, "minor": minor, "access": "rwm" });
    let all = json!({ "allow": false, "access": "rwm" });
    for setup in Setup::all() {
        let c = opener(setup, json!([all, deny(10, 200)])).start();
        assert_eq!(opened(&c), "empty\n", "{setup:?}");
        let update = |rules: Value| {
            let path = c.bundle.beside("resources.json");
            fs::write(&path, json!({ "devices": rules }).to_string()).unwrap();
            c.rt(["update", &c.id, "-r", path.to_str().unwrap()]).run().success();
            opened(&c)
        };
        let allow_console =
            json!({ "allow": true, "type": "c", "major": 5, "minor": 1, "access": "rw" });
        assert_eq!(update(json!([deny(1, 3), deny(10, 200), all])), "", "{setup:?}");
        let asked = update(json!([all, allow_console, deny(10, 200)]));
        assert!(asked.contains("empty") && !asked.contains("tun"), "{setup:?}: {asked}");
        assert!(!update(json!([all])).contains("terminal"), "{setup:?}");
    }
}
