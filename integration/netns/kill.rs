//! `add` and `del` killed at every system call, and then `del`.

use crate::harness::inject::{At, CALLER, Fault, inject, sweep_step, trace};

use super::world::{Guest, World, world};

const OPTIONS: &str = "--network six --publish 8080:80 --publish 8080:80/udp";

/// Every one of them with `RT_SWEEP_STEP=1`; a sample if nothing is said.
fn step() -> usize {
    sweep_step(9)
}

#[test]
fn add_killed_at_any_call_leaves_nothing_for_del() {
    world(|w| {
        w.create("six", "--subnet6 fd00:6::/64");
        let calls = calls(w, &["add"]);
        for n in (1..=calls).step_by(step()) {
            let guest = Guest::new();
            killed(w, &["add", "a", "--pid", &guest.pid()], n);
            w.del("a");
            nothing_left(w, n);
        }
    });
}

#[test]
fn del_killed_at_any_call_leaves_nothing_for_the_next() {
    world(|w| {
        w.create("six", "--subnet6 fd00:6::/64");
        let calls = calls(w, &["del"]);
        for n in (1..=calls).step_by(step()) {
            let _guest = w.add("a", OPTIONS);
            killed(w, &["del", "a"], n);
            w.del("a");
            nothing_left(w, n);
        }
    });
}

fn words<'a>(args: &[&'a str]) -> Vec<&'a str> {
    let options: Vec<_> = OPTIONS.split(' ').collect();
    let options = if args[0] == "add" { options } else { vec![] };
    args.iter().copied().chain(options).collect()
}

/// How many calls the command makes by itself.
fn calls(w: &World, verb: &[&str]) -> usize {
    let guest = Guest::new();
    let pid = guest.pid();
    let (out, err) = (w.directory.path().join("out"), w.directory.path().join("err"));
    let add = words(&["add", "a", "--pid", &pid]);
    let traced = if verb == ["add"] {
        trace(&w.command(add), &out, &err)
    } else {
        w.rt(add).success();
        trace(&w.command(["del", "a"]), &out, &err)
    };
    assert_eq!(traced.status, 0, "{}", std::fs::read_to_string(&err).unwrap());
    w.del("a");
    traced.calls.iter().filter(|call| call.process == CALLER).count()
}

fn killed(w: &World, args: &[&str], n: usize) {
    let (out, err) = (w.directory.path().join("out"), w.directory.path().join("err"));
    let command = w.command(words(args));
    let traced = inject(&command, (&out, &err), At { process: CALLER, n }, Fault::Kill);
    assert!(!traced.hung, "call {n}");
}

#[track_caller]
fn nothing_left(w: &World, n: usize) {
    let links = w.host().sh("ip -br link");
    assert!(!links.contains("rt"), "call {n}: {links}");
    let rules = w.host().sh("nft list tables");
    assert!(!rules.contains("rtnet"), "call {n}: {rules}");
    let files = w.host().sh(&format!("find {} -type f -o -type l", w.state().display()));
    assert_eq!(files.trim(), w.state().join("lock").display().to_string(), "call {n}");
    crate::harness::until(&format!("the helper has ended, call {n}"), || w.helpers().is_empty());
}
