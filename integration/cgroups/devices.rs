//! Devices that a container may open.

use serde_json::json;

use crate::harness::{Bundle, View};

#[test]
fn only_allowed_devices_can_be_opened() {
    for view in View::all() {
        let rules = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "r" }
        ]);
        let done = Bundle::busybox()
            .in_view(view)
            .resources(json!({ "devices": rules }))
            .with_capabilities(&["CAP_MKNOD"])
            .script(
                "cd /dev; mknod kmsg2 c 1 11; head -c 0 kmsg2 && echo kmsg
                mknod port2 c 1 4 && echo port; (: < port2) && echo open
                cat /dev/null && echo null; head -c 1 /dev/zero | wc -c; echo x > /dev/full",
            )
            .run();
        let text = format!("{}{}", done.stdout, done.stderr);
        assert!(!done.stdout.contains("kmsg"), "{view:?}: {done}");
        assert!(!done.stdout.contains("open"), "{view:?}: {done}");
        assert!(done.stdout.contains("null\n1\n"), "{view:?}: {done}");
        assert!(text.contains("Operation not permitted"), "{view:?}: {done}");
        assert!(text.contains("No space left"), "{view:?}: {done}");
    }
}

#[test]
fn an_allowed_device_can_be_opened_as_its_rule_says() {
    for view in View::all() {
        // 1:8 with its own name, writing forbidden: the default rules name /dev/random otherwise.
        let rules = json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rm" }
        ]);
        let done = Bundle::busybox()
            .in_view(view)
            .resources(json!({ "devices": rules }))
            .with_capabilities(&["CAP_MKNOD", "CAP_SYSLOG"])
            .script(
                "cd /dev; mknod log c 1 11 || exit 1
                (: < log) && echo reads; (: > log) && echo writes; true",
            )
            .run()
            .success();
        assert_eq!(done.stdout, "reads\n", "{view:?}: {done}");
    }
}
