//! What is frozen does not die: the container, or a group below that it has frozen itself.

use super::{delete_all, groups, shell, two};
use crate::harness::{Bundle, Container, View, until};

/// Moves `pid` into a new group `name` below the container's, on every hierarchy that can freeze, and
/// freezes it there with both switches.
fn freeze_below(c: &Container, name: &str, pid: &str) {
    for group in groups(c) {
        let group = group.display();
        let script = format!(
            "cd {group}; [ -e freezer.state ] || [ -e cgroup.freeze ] || exit 0
            mkdir -p {name}; echo {pid} >{name}/cgroup.procs; cd {name}
            if [ -e freezer.state ]; then echo FROZEN >freezer.state; else echo 1 >cgroup.freeze; fi"
        );
        shell(c.bundle.view(), &script);
    }
}

/// The host's pid of the process with the command line `sleep 1000`.
fn sleeper(c: &Container) -> String {
    let find = |pid: &String| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line == b"sleep\x001000\0"
    };
    let mut found = None;
    until("the second process sleeps", || {
        found = super::processes(c).into_iter().find(find);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_process_that_is_frozen_in_a_group_below_does_not_hold_init() {
    for view in View::all() {
        let c = two(view).start();
        let pid = sleeper(&c);
        freeze_below(&c, "below", &pid);
        delete_all(&c);
    }
}

#[test]
fn init_can_be_frozen_in_a_group_three_levels_below() {
    for view in View::all() {
        let c = two(view).start();
        freeze_below(&c, "a/b/c", &c.pid().to_string());
        delete_all(&c);
    }
}

#[test]
fn a_process_frozen_in_a_group_below_goes_also_without_a_pid_namespace() {
    for view in View::all() {
        let c = two(view).without_namespace("pid").start();
        let pid = sleeper(&c);
        freeze_below(&c, "x/y", &pid);
        freeze_below(&c, "x", &c.pid().to_string());
        delete_all(&c);
    }
}

#[test]
fn who_freezes_the_container_again_and_again_does_not_save_it() {
    for view in View::all() {
        let c = Bundle::busybox().in_view(view).args(["sleep", "1000"]).start();
        let switches: Vec<_> =
            groups(&c).iter().map(|group| format!("{}", group.display())).collect();
        let script = format!(
            "n=0; while [ $n -lt 400 ]; do n=$((n+1)); for g in {}; do
                {{ echo FROZEN >$g/freezer.state; echo 1 >$g/cgroup.freeze; }} 2>/dev/null || :
            done; sleep 0.002; done",
            switches.join(" ")
        );
        // Only what is there is written: the shell makes no files in a hierarchy of cgroups.
        let mut freezer = view.command("sh").args(["-c", &script]).spawn().unwrap();
        c.delete_force();
        freezer.kill().unwrap();
        freezer.wait().unwrap();
        delete_all(&c);
    }
}

#[test]
fn what_a_group_above_has_frozen_is_named_and_can_be_deleted_later() {
    for view in View::all() {
        let bundle = Bundle::busybox().in_view(view).args(["sleep", "1000"]);
        let above = format!("{}above", bundle.mark());
        let path = format!("/{above}/box");
        let c = bundle.config(|c| c["linux"]["cgroupsPath"] = path.into()).start();
        let find = format!("find /sys/fs/cgroup -type d -name {above} 2>/dev/null || true");
        let switch = |state: &str, v2: &str| {
            let script = format!(
                "for g in $({find}); do if [ -e $g/freezer.state ]; then echo {state} >$g/freezer.state
                elif [ -e $g/cgroup.freeze ]; then echo {v2} >$g/cgroup.freeze; fi; done"
            );
            shell(view, &script);
        };
        switch("FROZEN", "1");
        let done = c.rt(["delete", "--force", &c.id]).run();
        // Version 2 lets frozen processes die.
        if done.status != 0 {
            let done = done.one_line().says(&["frozen", &above]);
            assert_eq!(done.stdout, "");
            assert!(super::record(&c).exists(), "{view:?}: it can be tried again");
            switch("THAWED", "0");
        }
        delete_all(&c);
    }
}
