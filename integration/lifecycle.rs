//! create, start, run, state, list, kill, delete, spec: what a caller may rely on.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Bundle, Container, Schema, TempDir, proc_status, until};

#[test]
fn a_created_container_waits_for_start() {
    let c = Bundle::busybox().args(["echo", "hello"]).create();
    assert_eq!(c.status(), "created");
    assert_eq!(c.output(), "");
    c.start();
    assert_eq!(c.wait(), 0);
    assert_eq!(c.output(), "hello\n");
}

#[test]
fn a_container_passes_through_created_running_and_stopped() {
    let c = Bundle::busybox().script("read line < /dev/null; sleep 100").create();
    assert_eq!(c.status(), "created");
    c.start();
    assert_eq!(c.status(), "running");
    c.kill("KILL");
    assert_eq!(c.wait(), 128 + 9);
    assert_eq!(c.status(), "stopped");
    c.delete();
    c.rt(["state", &c.id]).run().says(&["does not exist"]);
}

#[test]
fn a_dead_init_that_nobody_has_reaped_is_stopped() {
    let c = Bundle::busybox().args(["true"]).start();
    until("init is a zombie", || proc_status(c.pid(), "State").starts_with('Z'));
    assert_eq!(c.status(), "stopped");
    c.delete();
}

#[test]
fn state_says_what_the_specification_asks_for() {
    let c = Bundle::busybox()
        .config(|c| c["annotations"] = serde_json::json!({ "org.example.key": "value" }))
        .create();
    let state = c.state();
    assert_eq!(Schema::state().faults(&state), [""; 0]);
    assert_eq!(state["id"], Value::from(&*c.id));
    assert_eq!(state["pid"], c.pid());
    assert_eq!(state["bundle"], c.bundle.path().to_str().unwrap());
    assert_eq!(state["annotations"]["org.example.key"], "value");
    // Of the state, whatever the configuration says of itself.
    let features = c.rt(["features"]).run().success().stdout;
    let features: Value = serde_json::from_str(&features).unwrap();
    assert_eq!(state["ociVersion"], features["ociVersionMax"]);
}

#[test]
fn a_stopped_container_has_no_pid() {
    let c = Bundle::busybox().args(["true"]).start();
    c.wait();
    let state = c.state();
    assert!(state["pid"].as_i64().unwrap_or(0) == 0, "{state}");
}

#[test]
fn run_gives_the_exit_status_and_both_streams() {
    let done = Bundle::busybox().script("echo out; echo err >&2; exit 42").run();
    assert_eq!((done.status, &*done.stdout, &*done.stderr), (42, "out\n", "err\n"));
}

#[test]
fn run_of_a_killed_process_gives_128_and_the_signal() {
    // As pid 1 it would be spared its own signal.
    let bundle = Bundle::busybox().without_namespace("pid").script("kill -9 $$");
    assert_eq!(bundle.run().status, 128 + 9);
}

#[test]
fn run_detached_leaves_a_running_container() {
    let c = Bundle::busybox().args(["sleep", "100"]).run_detached();
    assert_eq!(c.status(), "running");
}

#[test]
fn a_foreground_run_forwards_signals() {
    let script = "trap 'echo got TERM; exit 3' TERM; echo ready; while :; do sleep 0.02; done";
    let bundle = Bundle::busybox().script(script);
    let run = bundle.running();
    until("the trap is set", || run.output_so_far().contains("ready"));
    run.signal(Signal::SIGTERM);
    let done = run.finish();
    assert_eq!((done.status, &*done.stdout), (3, "ready\ngot TERM\n"));
}

#[test]
fn a_container_ends_with_its_foreground_run_only_if_it_is_asked_to() {
    let bundle = Bundle::busybox().script("trap '' HUP; echo ready; sleep 0.3; exit 5");
    let run = bundle.running();
    until("the trap is set", || run.output_so_far().contains("ready"));
    run.signal(Signal::SIGHUP);
    assert_eq!(run.finish().status, 5);
}

#[test]
fn the_pid_file_is_relative_to_the_callers_directory() {
    let bundle = Bundle::busybox();
    let directory = TempDir::new();
    bundle.write();
    let path = bundle.path();
    let args = ["create", "--bundle", path.to_str().unwrap(), "--pid-file", "here"];
    let rt = bundle.rt(args.into_iter().chain([&*bundle.id()]));
    rt.directory(directory.path()).run().success();
    let pid = fs::read_to_string(directory.path().join("here")).unwrap();
    fs::copy(directory.path().join("here"), bundle.beside("pid")).unwrap();
    let c = Container::of(bundle);
    assert_eq!(pid, c.pid().to_string(), "a number without a newline");
    assert_eq!(c.state()["pid"], c.pid());
}

#[test]
fn the_bundle_is_the_working_directory_when_none_is_named() {
    let bundle = Bundle::busybox().args(["echo", "here"]);
    bundle.write();
    let done = bundle.rt(["run", &bundle.id()]).directory(&bundle.path()).run().success();
    assert_eq!(done.stdout, "here\n");
}

#[test]
fn an_id_in_use_is_refused_and_its_container_lives_on() {
    let c = Bundle::busybox().args(["sleep", "100"]).create();
    let path = c.bundle.path();
    c.rt(["create", "--bundle", path.to_str().unwrap(), &c.id]).run().failure();
    assert_eq!(c.status(), "created");
    c.start();
    c.rt(["create", "--bundle", path.to_str().unwrap(), &c.id]).run().failure();
    assert_eq!(c.status(), "running");
}

#[test]
fn a_forced_delete_of_an_unknown_id_is_silent_success() {
    let bundle = Bundle::busybox();
    for args in [["delete", "--force", "nobody"], ["delete", "nobody", "-f"]] {
        let done = bundle.rt(args).run().success();
        assert_eq!((&*done.stdout, &*done.stderr), ("", ""));
    }
}

#[test]
fn a_running_container_is_not_deleted_without_force() {
    let c = Bundle::busybox().args(["sleep", "100"]).start();
    c.rt(["delete", &c.id]).run().failure();
    assert_eq!(c.status(), "running");
    c.delete_force();
    c.rt(["state", &c.id]).run().failure();
    c.bundle.leftovers().assert_none_since();
}

#[test]
fn a_created_container_can_be_deleted() {
    let c = Bundle::busybox().create();
    c.delete();
    c.wait();
    c.bundle.leftovers().assert_none_since();
}

#[test]
fn a_second_start_is_refused() {
    let c = Bundle::busybox().args(["sleep", "100"]).start();
    c.rt(["start", &c.id]).run().failure();
    assert_eq!(c.status(), "running");
    c.kill("KILL");
    c.wait();
    c.rt(["start", &c.id]).run().failure();
}

#[test]
fn of_two_starts_at_once_exactly_one_succeeds() {
    for _ in 0..10 {
        let c = Bundle::busybox().args(["echo", "once"]).create();
        let both = [(); 2].map(|()| c.rt(["start", &c.id]).spawn());
        let won = both.map(|start| start.finish().status == 0);
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
        c.wait();
        assert_eq!(c.output(), "once\n");
    }
}

#[test]
fn a_signal_may_have_a_name_with_or_without_sig_or_a_number() {
    for signal in ["TERM", "SIGTERM", "15", "term"] {
        let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done";
        let c = Bundle::busybox().script(script).start();
        until("the trap is set", || c.output().contains("ready"));
        c.kill(signal);
        assert_eq!(c.wait(), 9, "{signal}");
    }
}

#[test]
fn kill_without_a_signal_sends_term() {
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done";
    let c = Bundle::busybox().script(script).start();
    until("the trap is set", || c.output().contains("ready"));
    c.rt(["kill", &c.id]).run().success();
    assert_eq!(c.wait(), 9);
}

#[test]
fn a_created_container_can_be_killed() {
    let c = Bundle::busybox().create();
    c.kill("KILL");
    assert_eq!(c.wait(), 128 + 9);
    assert_eq!(c.status(), "stopped");
}

#[test]
fn a_created_container_ends_when_it_is_asked_to() {
    for signal in ["HUP", "INT", "QUIT", "TERM"] {
        let c = Bundle::busybox().create();
        c.kill(signal);
        assert_ne!(c.wait(), 0, "{signal}");
        assert_eq!(c.status(), "stopped");
    }
}

#[test]
fn kill_of_a_stopped_container_says_what_clients_look_for() {
    let c = Bundle::busybox().args(["true"]).start();
    c.wait();
    let done = c.rt(["kill", &c.id, "KILL"]).run().failure();
    let known = ["process already finished", "container not running", "no such process"];
    assert!(known.iter().any(|text| done.stderr.contains(text)), "{done}");
}

#[test]
fn kill_in_the_hosts_pid_namespace_ends_every_process() {
    let c = Bundle::busybox()
        .without_namespace("pid")
        .script("setsid sleep 1000 & setsid sleep 1000 & echo ready; sleep 1000")
        .start();
    until("it has children", || c.output().contains("ready"));
    c.kill("KILL");
    assert_eq!(c.wait(), 128 + 9);
    c.delete();
    c.bundle.leftovers().assert_none_since();
}

#[test]
fn kill_reaches_those_whom_init_has_left_behind() {
    let c = Bundle::busybox()
        .without_namespace("pid")
        .script("setsid sleep 1000 & echo ready; wait")
        .start();
    until("it has children", || c.output().contains("ready"));
    kill(Pid::from_raw(c.pid()), Signal::SIGKILL).unwrap();
    c.wait();
    c.rt(["kill", &c.id, "TERM"]).run().failure();
    c.kill("KILL");
    until("they are gone", || c.rt(["ps", "--format", "json", &c.id]).run().stdout == "[]\n");
    c.rt(["kill", &c.id, "KILL"]).run().failure();
}

#[test]
fn init_outlives_the_command_that_created_it() {
    let c = Bundle::busybox().args(["sleep", "100"]).start();
    let parent = proc_status(c.pid(), "PPid");
    assert_eq!(parent, std::process::id().to_string(), "the nearest sub-reaper");
    assert_eq!(c.status(), "running");
}
