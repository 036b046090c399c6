//! Warnings: without a log each is a line of standard error, and nothing else is written there.

use std::fs;

use serde_json::json;

use crate::harness::{Bundle, Container, Done};

const BEGINNING: &str = "rt: warning: ";

/// One warning on standard error that has `word` in it, and no other line.
#[track_caller]
fn assert_warned(stderr: &str, word: &str) {
    let lines: Vec<_> = stderr.lines().collect();
    assert!(
        lines.len() == 1 && lines[0].starts_with(BEGINNING) && lines[0].contains(word),
        "one warning about {word}: {stderr}"
    );
}

fn with_poststop(path: &str) -> Container {
    let hooks = json!({ "poststop": [{ "path": path }] });
    Bundle::busybox().args(["true"]).config(|c| c["hooks"] = hooks).start()
}

#[test]
fn what_goes_well_writes_nothing() {
    let bundle = Bundle::busybox().args(["sleep", "1000"]).resources(json!({
        "memory": { "limit": 64 << 20 }, "pids": { "limit": 100 },
    }));
    let c = bundle.start();
    assert_eq!(c.errors(), "");
    let silent = |done: Done| assert_eq!(done.success().stderr, "");
    silent(c.exec(["true"]));
    for words in [
        &["state", &c.id][..],
        &["list"],
        &["pause", &c.id],
        &["resume", &c.id],
        &["ps", &c.id],
        &["update", "--memory", "67108864", &c.id],
        &["events", "--stats", &c.id],
        &["kill", &c.id, "KILL"],
    ] {
        silent(c.rt(words.iter().copied()).run());
    }
    c.wait();
    silent(c.rt(["delete", &c.id]).run());
}

#[test]
fn a_failed_poststop_hook_is_told_by_delete_and_by_run() {
    let c = with_poststop("/bin/false");
    c.wait();
    let done = c.rt(["delete", &c.id]).run().success();
    assert_warned(&done.stderr, "hooks.poststop[0] /bin/false");
    let hooks = json!({ "poststop": [{ "path": "/no/such\nhook" }] });
    let done = Bundle::busybox().args(["true"]).config(|c| c["hooks"] = hooks).run().success();
    assert_warned(&done.stderr, "hooks.poststop[0]");
}

#[test]
fn with_a_log_it_has_the_warnings_and_standard_error_nothing() {
    for format in ["text", "json"] {
        let c = with_poststop("/bin/false");
        c.wait();
        let log = c.bundle.beside("log");
        let words = ["--log", log.to_str().unwrap(), "--log-format", format, "delete", &c.id];
        assert_eq!(c.rt(words).run().success().stderr, "");
        let text = fs::read_to_string(&log).unwrap();
        assert!(text.contains("warning") && text.contains("hooks.poststop[0]"), "{text}");
    }
}

#[test]
fn a_misspelt_capability_is_told_when_the_container_is_made_and_not_again() {
    let misspelt = json!(["CAP_KILL", "CAP_NO_SUCH"]);
    let c = Bundle::busybox()
        .args(["sleep", "1000"])
        .config(|c| c["process"]["capabilities"]["bounding"] = misspelt.clone())
        .create();
    assert_warned(&c.errors(), "CAP_NO_SUCH");
    assert_eq!(c.exec(["true"]).success().stderr, "");
    let process = json!({ "cwd": "/", "args": ["true"], "user": { "uid": 0, "gid": 0 },
        "capabilities": { "bounding": ["CAP_OTHER"] } });
    let file = c.bundle.beside("process.json");
    fs::write(&file, process.to_string()).unwrap();
    let done = c.exec_with(&["--process", file.to_str().unwrap()], [""; 0]).success();
    assert_warned(&done.stderr, "CAP_OTHER");
}

#[test]
fn a_container_that_cannot_be_read_is_told_by_list() {
    let c = Bundle::busybox().args(["sleep", "1000"]).start();
    let root = c.bundle.beside("state");
    let other = root.join("unreadable");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("state.json"), "{").unwrap();
    let done = c.rt(["list", "--quiet"]).run();
    fs::remove_dir_all(&other).unwrap();
    let done = done.success();
    assert_eq!(done.stdout, format!("{}\n", c.id));
    assert_warned(&done.stderr, "unreadable");
}

#[test]
fn options_and_limits_of_the_past_are_told() {
    let c = Bundle::busybox()
        .args(["sleep", "1000"])
        .resources(json!({ "memory": { "limit": 64 << 20 } }))
        .start();
    let done = c.rt(["update", "--kernel-memory", "8m", &c.id]).run().success();
    assert_warned(&done.stderr, "--kernel-memory");
}

#[test]
fn a_name_in_a_filter_that_is_no_system_call_is_told() {
    let profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["chmod", "fchmdo", "riscv_flush_icache"], "action": "SCMP_ACT_ERRNO" }] });
    let bundle = Bundle::busybox().args(["true"]).config(|c| c["linux"]["seccomp"] = profile);
    assert_warned(&bundle.run().success().stderr, "fchmdo");
}
