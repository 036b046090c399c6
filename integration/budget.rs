//! How many system calls the commands need: a cost that no noise moves. Everything counts, from the
//! execve of the runtime to the end of it and of the program that it runs.

use std::fs;
use std::io::Write;
use std::process::Command;

use nix::libc;
use serde_json::{Value, json};

use crate::harness::inject::{Call, trace_all};
use crate::harness::{Bundle, Container, Rt, TempDir, View, runc};

/// The budgets of version 1 are for a host with ten hierarchies; each further one costs a group
/// that is made, entered, shown and removed.
const HIERARCHY: usize = 10;

#[test]
fn a_run_of_the_default_configuration_keeps_its_budget() {
    for view in views() {
        let bundle = default_bundle(view, &["/bin/true"]);
        let run = count(&bundle, &bundle.launch(&["run"], &bundle.id()));
        keep(view, "run", run, (550, 450));
    }
}

#[test]
fn create_start_and_delete_keep_their_budget() {
    for view in views() {
        let bundle = default_bundle(view, &["/bin/sleep", "1000"]);
        let id = bundle.id();
        let create = count(&bundle, &bundle.launch(&["create"], &id));
        let c = Container::of(bundle);
        let start = count(&c.bundle, &c.rt(["start", &id]));
        c.kill("KILL");
        c.wait();
        let delete = count(&c.bundle, &c.rt(["delete", &id]));
        keep(view, "create, start, delete", create + start + delete, (600, 500));
    }
}

#[test]
fn exec_and_state_keep_their_budgets() {
    for view in views() {
        let c = default_bundle(view, &["/bin/sleep", "1000"]).start();
        keep(view, "exec", count(&c.bundle, &c.rt(["exec", &c.id, "true"])), (300, 300));
        keep(view, "state", count(&c.bundle, &c.rt(["state", &c.id])), (60, 60));
    }
}

/// On a hybrid host both of these can be had.
fn views() -> impl Iterator<Item = View> {
    View::all().filter(|view| *view != View::Hybrid)
}

/// What `runc spec` writes, without the terminal.
fn default_bundle(view: View, args: &[&str]) -> Bundle {
    let directory = TempDir::new();
    let spec = Command::new(runc()).arg("spec").current_dir(directory.path()).status();
    assert!(spec.unwrap().success());
    let text = fs::read(directory.path().join("config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    config["process"]["terminal"] = json!(false);
    Bundle::busybox().in_view(view).config(|c| *c = config).args(args)
}

fn count(bundle: &Bundle, command: &Rt) -> usize {
    let (out, err) = (bundle.beside("out"), bundle.beside("err"));
    let traced = trace_all(command, &out, &err);
    let errors = fs::read_to_string(err).unwrap();
    assert!(traced.status == 0 && !traced.hung, "{command:?}: {traced:?}: {errors}");
    let calls = &traced.calls;
    let next = |call: &Call| calls.iter().find(|c| (c.process, c.n) == (call.process, call.n + 1));
    calls.iter().filter(|call| !next(call).is_some_and(|next| is_debug_check(call, next))).count()
}

/// In the dev profile the standard library looks at each descriptor before it closes it.
fn is_debug_check(call: &Call, next: &Call) -> bool {
    let [fd, command] = call.arguments;
    call.number == libc::SYS_fcntl
        && command == libc::F_GETFD as u64
        && (next.number, next.arguments[0]) == (libc::SYS_close, fd)
}

/// Says the number past libtest's capture. The budgets are those of version 1 and version 2.
fn keep(view: View, command: &str, calls: usize, (v1, v2): (usize, usize)) {
    let hierarchies = fs::read_to_string("/proc/self/cgroup").unwrap().lines().count();
    let budget = match view {
        View::V2 => v2,
        _ => v1 + HIERARCHY * hierarchies.saturating_sub(10),
    };
    let line = format!("\nsystem calls, {view:?}, {command}: {calls} of {budget}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    assert!(calls <= budget, "{line}");
}
