//! Devices that a container may open.

use serde_json::{Value, json};

use super::Setup;
use crate::harness::Bundle;

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
