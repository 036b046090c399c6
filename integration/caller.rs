//! What the caller has done to itself, or to its files, does not change what the runtime does.

mod engine;
mod service;

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::{Bundle, Container, freeze, proc_status, until};

/// Foreground `run` below `sh -c SCRIPT`, where `"$@"` is the runtime; its status and output.
fn run_below(bundle: &Bundle, script: &str) -> (Option<i32>, String) {
    let words = ["timeout", "20", "sh", "-c", script, "sh"].map(OsString::from);
    let done = bundle.launch(&["run"], &bundle.id()).command(&words).output().unwrap();
    (done.status.code(), String::from_utf8(done.stdout).unwrap())
}

#[test]
fn a_caller_that_ignores_the_end_of_its_children_gets_the_status() {
    let bundle = Bundle::busybox().script("exit 7");
    assert_eq!(run_below(&bundle, "trap '' CHLD; exec \"$@\"").0, Some(7));
}

#[test]
fn what_the_caller_ignores_reaches_the_process() {
    let bundle = Bundle::busybox().args(["grep", "SigIgn", "/proc/self/status"]);
    let (_, output) = run_below(&bundle, "trap '' USR1 HUP CHLD PIPE; exec \"$@\"");
    assert_eq!(output, "SigIgn:\t0000000000000000\n");
}

#[test]
fn a_death_by_a_real_time_signal_has_a_status_too() {
    let c = Bundle::busybox().args(["sleep", "100"]).start();
    assert_eq!(c.exec(["sh", "-c", "kill -40 $$"]).status, 128 + 40);
}

#[test]
fn a_link_in_the_place_of_the_new_pid_file_is_not_followed() {
    let bundle = Bundle::busybox().args(["true"]);
    let victim = bundle.beside("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, bundle.beside(".pid")).unwrap();
    let c = bundle.create();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(!fs::symlink_metadata(c.bundle().beside("pid")).unwrap().is_symlink());
}

#[test]
fn a_run_that_ends_leaves_the_next_container_of_its_name_alone() {
    let bundle = Bundle::busybox().script("echo up; exec sleep 100");
    let id = bundle.id();
    for _ in 0..10 {
        let first = bundle.running();
        until("the program runs", || first.output_so_far() == "up\n");
        bundle.rt(["delete", "--force", &id]).run().success();
        bundle.launch(&["run", "--detach"], &id).run().success();
        assert_eq!(first.finish().status, 128 + 9);
        assert!(bundle.rt(["state", &id]).run().success().stdout.contains("running"));
        bundle.rt(["delete", "--force", &id]).run().success();
    }
}

#[test]
fn the_session_keyring_of_an_exec_is_that_of_the_container() {
    let bundle = Bundle::busybox().config(|c| c["linux"]["maskedPaths"] = serde_json::json!([]));
    let c = bundle.args(["sleep", "100"]).start();
    let keys = c.exec(["cat", "/proc/keys"]).success().stdout;
    // A second one would be a new one of the same name.
    assert_eq!(keys.matches(&format!("_ses.{}:", c.id)).count(), 1, "{keys}");
}

#[test]
fn a_process_of_exec_without_a_umask_has_the_callers_and_init_has_022() {
    let bundle = Bundle::busybox().args(["sleep", "100"]);
    let words = ["sh", "-c", "umask 027; exec \"$@\"", "sh"].map(OsString::from);
    let done = bundle.launch(&["run", "--detach"], &bundle.id()).command(&words).status().unwrap();
    assert!(done.success());
    let c = Container::of(bundle);
    let exec = c.exec_rt(&[], ["sh", "-c", "umask"]).command(&words).output().unwrap();
    assert_eq!(proc_status(c.pid(), "Umask"), "0022");
    assert_eq!(String::from_utf8(exec.stdout).unwrap(), "0027\n");
}

#[test]
fn a_frozen_container_is_paused_and_can_be_killed_and_deleted() {
    let c = Bundle::busybox().args(["sleep", "100"]).start();
    freeze(c.pid());
    until("it is frozen", || c.status() == "paused");
    c.kill("KILL");
    assert_eq!(c.wait(), 128 + 9);
    c.delete();

    let c = Bundle::busybox().args(["sleep", "100"]).start();
    freeze(c.pid());
    until("it is frozen", || c.status() == "paused");
    c.delete_force();
}

#[test]
fn whatever_the_propagation_of_the_root_no_mount_stays_on_a_host_that_shares_its_mounts() {
    let script =
        "mount --make-rshared /; \"$@\"; echo status $?, $(grep -c $1 /proc/self/mountinfo)";
    for word in ["private", "rprivate", "slave", "rslave", "unbindable", "shared", "rshared"] {
        let bundle = Bundle::busybox().args(["echo", "hello"]).config(|c| {
            c["linux"]["rootfsPropagation"] = word.into();
        });
        let path = bundle.path().display().to_string();
        let script = script.replace("$1", &path);
        let words = ["unshare", "-m", "timeout", "20", "sh", "-c", &script, "sh"];
        let words = words.map(OsString::from);
        let done = bundle.launch(&["run"], &bundle.id()).command(&words).output().unwrap();
        let output = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(output, "hello\nstatus 0, 0\n", "{word}: {done:?}");
    }
}

/// The soft limit alone, and both, in KiB: less than any command needs of its own.
const SMALL_STACKS: [&str; 3] = ["ulimit -S -s 64", "ulimit -s 64", "ulimit -s 48"];

#[test]
fn a_small_stack_of_the_caller_is_enough_for_every_command() {
    for limit in SMALL_STACKS {
        let small = format!("{limit}; exec \"$@\"");
        let bundle = Bundle::busybox().directory("/data").file("/data/file", "up\n");
        let bundle = bundle.mount(serde_json::json!({ "destination": "/data", "type": "tmpfs",
            "source": "tmpfs", "options": ["tmpcopyup"] }));
        let c = bundle.through(&["sh", "-c", &small, "sh"]).args(["sleep", "1000"]).create();
        c.start();
        assert_eq!(c.exec(["cat", "/data/file"]).success().stdout, "up\n", "{limit}");
        for words in [
            &["state", &c.id][..],
            &["list"],
            &["ps", &c.id],
            &["features"],
            &["spec", "--bundle", c.bundle.beside("").to_str().unwrap()],
            &["update", "--pids-limit", "50", &c.id],
            &["events", "--stats", &c.id],
            &["pause", &c.id],
            &["resume", &c.id],
            &["netns", "--state", c.bundle.beside("networks").to_str().unwrap(), "list"],
            &["--help"],
            &["kill", &c.id, "KILL"],
        ] {
            c.rt(words.iter().copied()).run().success();
        }
        c.wait();
        c.delete();
    }
}

#[test]
fn the_process_has_the_callers_own_limit_of_the_stack() {
    for (limit, kib) in SMALL_STACKS.into_iter().zip(["64", "64", "48"]) {
        let bundle = Bundle::busybox().script("ulimit -S -s");
        let (status, output) = run_below(&bundle, &format!("{limit}; exec \"$@\""));
        assert_eq!((status, output.trim()), (Some(0), kib), "{limit}");
    }
}

#[test]
fn what_goes_wrong_with_a_small_stack_is_an_error_and_no_fault() {
    let small = "ulimit -s 64; exec \"$@\"";
    let bundle = Bundle::busybox().args(["/no/such"]).through(&["sh", "-c", small, "sh"]);
    bundle.refused().one_line().says(&["no such file or directory"]);
    let mut deep = serde_json::json!({});
    for _ in 0..100 {
        deep = serde_json::json!({ "in": deep });
    }
    let bundle = Bundle::busybox().config(|c| c["hooks"] = deep);
    bundle.args(["true"]).through(&["sh", "-c", small, "sh"]).run();
}
