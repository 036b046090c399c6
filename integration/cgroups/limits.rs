//! Limits that can be felt.

use serde_json::json;

use super::has;
use crate::harness::{Bundle, View};

#[test]
fn the_limit_of_pids_holds() {
    for view in View::all().filter(|view| has(*view, "pids")) {
        let done = Bundle::busybox()
            .in_view(view)
            .resources(json!({ "pids": { "limit": 5 } }))
            .script("for n in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait")
            .run();
        assert!(done.stderr.contains("fork"), "{view:?}: {done}");
    }
}

#[test]
fn a_limit_of_one_pid_is_enough_to_start() {
    for view in View::all().filter(|view| has(*view, "pids")) {
        let bundle = Bundle::busybox().in_view(view).resources(json!({ "pids": { "limit": 1 } }));
        assert_eq!(bundle.args(["echo", "alone"]).run().success().stdout, "alone\n");
    }
}

#[test]
fn the_limit_of_memory_holds() {
    for view in View::all().filter(|view| has(*view, "memory")) {
        let done = Bundle::busybox()
            .in_view(view)
            .resources(json!({ "memory": { "limit": 8 << 20 } }))
            .mount(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }))
            .script("dd if=/dev/zero of=/tmp/full bs=1M count=64; echo survived")
            .run();
        assert!(!done.stdout.contains("survived") || done.stderr.contains("Killed"), "{done}");
    }
}

#[test]
fn half_a_megabyte_is_enough_to_start() {
    for view in View::all().filter(|view| has(*view, "memory")) {
        let bundle = Bundle::busybox().in_view(view);
        let bundle = bundle.resources(json!({ "memory": { "limit": 512 << 10 } }));
        assert_eq!(bundle.args(["echo", "small"]).run().success().stdout, "small\n");
    }
}

#[test]
fn the_quota_of_the_cpu_holds() {
    for view in View::all().filter(|view| has(*view, "cpu")) {
        let script = "while :; do :; done & sleep 1; kill $!; cat /proc/$$/stat > /dev/null; times";
        let done = Bundle::busybox()
            .in_view(view)
            .resources(json!({ "cpu": { "quota": 10_000, "period": 100_000 } }))
            .script(&format!("{script}; wait; times"))
            .run();
        let last = done.stdout.lines().last().unwrap_or_default().to_owned();
        let user = last.split_whitespace().next().unwrap_or_default();
        let seconds = user.split_once('m').map(|(_, rest)| rest.trim_end_matches('s').to_owned());
        let seconds: f64 = seconds.unwrap_or_default().parse().unwrap_or(9.0);
        assert!(seconds < 0.5, "{view:?}: a tenth of a second was allowed\n{done}");
    }
}
