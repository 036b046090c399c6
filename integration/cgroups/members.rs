//! The processes of a container: `ps`, `kill --all`, and the end of all of them.

use std::process::Command;

use super::{cgroup_path, is_v2, sleeper};
use crate::harness::{Bundle, View, until};

/// A container of three processes that ignore TERM.
fn three(view: View) -> Bundle {
    let script = "trap '' TERM; sleep 1000 & sleep 1001 & echo ready; wait; wait";
    Bundle::busybox().in_view(view).script(script)
}

fn pids(c: &crate::harness::Container) -> Vec<i64> {
    let done = c.rt(["ps", "--format", "json", &c.id]).run().success();
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}\n{done}"))
}

#[test]
fn ps_lists_the_pids_of_the_host() {
    for view in View::all() {
        let c = three(view).start();
        until("there are three", || pids(&c).len() == 3);
        assert!(pids(&c).contains(&c.pid().into()), "{view:?}");
        c.delete_force();
    }
}

#[test]
fn ps_shows_them_as_a_table() {
    for view in View::all() {
        let c = three(view).start();
        until("there are three", || pids(&c).len() == 3);
        let done = c.rt(["ps", &c.id]).run();
        let host = Command::new("ps").arg("-ef").output().unwrap();
        if host.status.success() {
            let table = done.success().stdout;
            assert!(table.lines().next().unwrap().contains("PID"), "{table}");
            assert_eq!(table.lines().count(), 4, "{table}");
        } else {
            // This kernel lacks what ps needs for it: what it says is passed on.
            let word = String::from_utf8(host.stderr).unwrap();
            done.says(&["ps: ", word.trim()]);
        }
        let table = c.rt(["ps", &c.id, "-e", "-o", "pid,args"]).run().success().stdout;
        assert!(table.contains("sleep 1001"), "{table}");
        assert_eq!(table.lines().count(), 4, "{table}");
        c.rt(["ps", &c.id, "--no-such-option"]).run().says(&["ps: "]);
        c.rt(["ps", &c.id, "-e", "-o", "args"]).run().says(&["PID"]);
    }
}

#[test]
fn ps_of_a_stopped_container_lists_nobody() {
    for view in View::all() {
        let c = Bundle::busybox().in_view(view).args(["true"]).start();
        c.wait();
        assert!(pids(&c).is_empty());
    }
}

#[test]
fn ps_finds_processes_in_groups_below() {
    for view in View::all() {
        let c = three(view).start();
        until("there are three", || pids(&c).len() == 3);
        let top = if is_v2(view) { "" } else { "pids" };
        let inner = format!("/sys/fs/cgroup/{top}{}/inner", cgroup_path(&c, view));
        let one = pids(&c).into_iter().find(|pid| *pid != i64::from(c.pid())).unwrap();
        let script = format!("mkdir {inner} && echo {one} > {inner}/cgroup.procs");
        assert!(view.command("sh").args(["-c", &script]).status().unwrap().success());
        assert_eq!(pids(&c).len(), 3, "{view:?}");
        c.delete_force();
        c.bundle.leftovers().assert_none_since();
    }
}

#[test]
fn kill_all_reaches_every_process() {
    for view in View::all() {
        let script = "(trap 'echo child; exit' USR1; echo 1; while :; do sleep 0.01; done) &
            trap 'echo init; wait; exit 5' USR1; echo 2; while :; do sleep 0.01; done";
        let c = Bundle::busybox().in_view(view).script(script).start();
        until("both are ready", || c.output().len() == 4);
        c.rt(["kill", "--all", &c.id, "USR1"]).run().success();
        assert_eq!(c.wait(), 5, "{view:?}");
        assert!(c.output().contains("child") && c.output().contains("init"), "{}", c.output());
    }
}

#[test]
fn kill_all_of_a_stopped_container_succeeds() {
    for view in View::all() {
        let c = Bundle::busybox().in_view(view).args(["true"]).start();
        c.wait();
        c.rt(["kill", "--all", &c.id, "KILL"]).run().success();
        c.rt(["kill", &c.id, "KILL"]).run().says(&["container not running"]);
    }
}

#[test]
fn kill_all_ends_what_init_left_in_the_hosts_pid_namespace() {
    for view in View::all() {
        let c = Bundle::busybox()
            .in_view(view)
            .without_namespace("pid")
            .script("sleep 1000 & sleep 1001 & echo ready")
            .start();
        c.wait();
        assert_eq!(c.status(), "stopped");
        assert_eq!(pids(&c).len(), 2, "{view:?}");
        c.rt(["kill", "--all", &c.id, "KILL"]).run().success();
        until("nobody is left", || pids(&c).is_empty());
        c.delete();
        c.bundle.leftovers().assert_none_since();
    }
}

#[test]
fn delete_ends_a_container_that_forks_without_end() {
    for view in View::all() {
        let c = Bundle::busybox()
            .in_view(view)
            .without_namespace("pid")
            .resources(serde_json::json!({ "pids": { "limit": 60 } }))
            .config(|c| {
                if !super::has(view, "pids") {
                    c["linux"]["resources"].as_object_mut().unwrap().remove("pids");
                }
            })
            .script("f() { while :; do (sleep 0.01; :) & sleep 0.02; done; }; f & f & f")
            .start();
        until("it forks", || pids(&c).len() > 3);
        c.delete_force();
        c.bundle.leftovers().assert_none_since();
    }
}

#[test]
fn a_sleeper_of_every_view_is_deleted_with_groups_nested_deep() {
    for view in View::all() {
        let c = sleeper(view).start();
        let top = if is_v2(view) { "" } else { "pids" };
        let inner = format!("/sys/fs/cgroup/{top}{}", cgroup_path(&c, view));
        let script =
            format!("cd {inner} && for n in 1 2 3 4 5 6 7 8 9; do mkdir in && cd in; done");
        assert!(view.command("sh").args(["-ec", &script]).status().unwrap().success());
        c.delete_force();
        c.bundle.leftovers().assert_none_since();
    }
}
