//! The bundles of this repository, which the documentation shows, do what it says.

use crate::harness::Bundle;

#[test]
fn hello_says_hello() {
    let done = Bundle::of_repository("hello").run().success();
    assert!(done.stdout.to_lowercase().contains("hello"), "{done}");
}

#[test]
fn shell_runs_what_it_is_given() {
    // A terminal is for a person: here the same shell reads a script.
    let bundle = Bundle::of_repository("shell").config(|c| {
        assert_eq!(c["process"]["terminal"], true);
        c["process"]["terminal"] = false.into();
    });
    let done = bundle.script("echo from the shell; id -u").run().success();
    assert_eq!(done.stdout, "from the shell\n0\n");
}

#[test]
fn limits_has_limits_and_runs() {
    let mut resources = serde_json::Value::Null;
    let bundle = Bundle::of_repository("limits").config(|c| {
        resources = c["linux"]["resources"].clone();
    });
    for kind in ["pids", "memory", "cpu"] {
        assert!(resources[kind].is_object(), "{kind} in {resources}");
    }
    bundle.run().success();
}
