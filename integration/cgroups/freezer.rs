//! `pause` and `resume`, and that nothing stays frozen.

use std::fs;

use super::{cgroup_path, is_v2, sleeper};
use crate::harness::{Bundle, Container, View, runtime, until};

fn pause(c: &Container) {
    c.rt(["pause", &c.id]).run().success();
}

fn resume(c: &Container) {
    c.rt(["resume", &c.id]).run().success();
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    for view in View::all() {
        let c = Bundle::busybox().in_view(view).script("while :; do echo tick; done").start();
        until("it counts", || c.output().len() > 100);
        pause(&c);
        assert_eq!(c.status(), "paused", "{view:?}");
        let length = c.output().len();
        // Whoever counts without a rest would have gone on while these two commands ran.
        c.rt(["state", &c.id]).run().success();
        c.rt(["list"]).run().success();
        assert_eq!(c.output().len(), length, "{view:?}");
        resume(&c);
        assert_eq!(c.status(), "running");
        until("it goes on", || c.output().len() > length);
    }
}

#[test]
fn pause_and_resume_say_what_is_wrong() {
    for view in View::all() {
        let c = sleeper(view).start();
        c.rt(["resume", &c.id]).run().says(&["container not paused"]);
        pause(&c);
        c.rt(["pause", &c.id]).run().says(&["container not running: already paused"]);
        resume(&c);
        c.kill("KILL");
        c.wait();
        c.rt(["pause", &c.id]).run().says(&["container not running"]);
        c.rt(["resume", &c.id]).run().says(&["container not paused"]);
        c.rt(["pause", "no-such-container"]).run().says(&["container does not exist"]);
    }
}

#[test]
fn a_created_container_can_be_paused() {
    for view in View::all() {
        let c = Bundle::busybox().in_view(view).args(["echo", "hello"]).create();
        pause(&c);
        assert_eq!(c.status(), "paused");
        c.rt(["start", &c.id]).run().says(&["cannot start a container in the paused state"]);
        resume(&c);
        assert_eq!(c.status(), "created");
        assert_eq!(c.finish(), (0, "hello\n".to_owned()));
    }
}

#[test]
fn exec_is_refused_while_it_is_paused() {
    for view in View::all() {
        let c = sleeper(view).start();
        pause(&c);
        c.exec(["true"]).says(&["paused"]);
        resume(&c);
        c.exec(["true"]).success();
    }
}

#[test]
fn a_paused_container_can_be_killed() {
    for view in View::all() {
        let c = sleeper(view).start();
        pause(&c);
        c.kill("KILL");
        assert_eq!(c.wait(), 128 + 9, "{view:?}");
        assert_eq!(c.status(), "stopped");
        c.delete();
        c.bundle.leftovers().assert_none_since();
    }
}

#[test]
fn a_paused_container_can_be_deleted_with_force() {
    for view in View::all() {
        let c = sleeper(view).start();
        pause(&c);
        c.rt(["delete", &c.id]).run().says(&["paused"]);
        c.delete_force();
        c.bundle.leftovers().assert_none_since();
    }
}

#[test]
fn another_signal_reaches_a_paused_container_when_it_goes_on() {
    for view in View::all() {
        let c = Bundle::busybox()
            .in_view(view)
            .script("trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.01; done")
            .start();
        until("it is ready", || c.output() == "ready\n");
        pause(&c);
        c.kill("TERM");
        assert_eq!(c.status(), "paused");
        resume(&c);
        assert_eq!(c.wait(), 3, "{view:?}");
        assert_eq!(c.output(), "ready\ngot it\n");
    }
}

#[test]
fn a_hundred_pauses_under_load_lose_nothing() {
    for view in View::all() {
        // Every number that a process forked for it has printed arrives, in order.
        let script = "n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); (echo $n); done; echo end";
        let c = Bundle::busybox().in_view(view).writable().script(script).start();
        let loops = "for n in $(seq 100); do
            \"$0\" --root \"$1\" pause \"$2\" && \"$0\" --root \"$1\" resume \"$2\" || exit 1
        done";
        let mut command = view.command("timeout");
        command.args(["300", "sh", "-c", loops]).arg(runtime()).arg(c.bundle.beside("state"));
        assert!(command.arg(&c.id).status().unwrap().success(), "{view:?}");
        fs::write(c.bundle.rootfs().join("tmp/stop"), "").unwrap();
        assert_eq!(c.wait(), 0, "{view:?}");
        let output = c.output();
        let lines: Vec<&str> = output.lines().collect();
        let (end, numbers) = lines.split_last().unwrap();
        assert_eq!(*end, "end");
        assert!(!numbers.is_empty());
        for (i, number) in numbers.iter().enumerate() {
            assert_eq!(number.parse::<usize>(), Ok(i + 1), "{view:?}");
        }
    }
}

#[test]
fn what_the_container_froze_itself_stays_frozen() {
    for view in View::all() {
        let c = sleeper(view).script("sleep 1000 & sleep 1001").start();
        let top = if is_v2(view) { "" } else { "freezer" };
        let dir = format!("/sys/fs/cgroup/{top}{}", cgroup_path(&c, view));
        let (switch, on) =
            if is_v2(view) { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
        let shell = |script: &str| {
            let done = view.command("sh").args(["-ec", script]).output().unwrap();
            assert!(done.status.success(), "{view:?} {script}: {done:?}");
            String::from_utf8(done.stdout).unwrap()
        };
        // In version 2 a group with processes of its own has no controllers below, which is no
        // hindrance for the freezer.
        shell(&format!("mkdir {dir}/inner; echo {on} > {dir}/inner/{switch}"));
        pause(&c);
        resume(&c);
        let state = shell(&format!("cat {dir}/inner/{switch}"));
        assert_eq!(state.trim(), on, "{view:?}");
        // And is no hindrance for its end.
        c.delete_force();
        c.bundle.leftovers().assert_none_since();
    }
}

#[test]
fn a_frozen_cgroup_is_refused() {
    for view in View::all() {
        let bundle = sleeper(view);
        let path = format!("/{}frozen", bundle.mark());
        let (directory, switch, on) = match is_v2(view) {
            true => (format!("/sys/fs/cgroup{path}"), "cgroup.freeze", "1"),
            false => (format!("/sys/fs/cgroup/freezer{path}"), "freezer.state", "FROZEN"),
        };
        let script = format!("mkdir {directory} && echo {on} > {directory}/{switch}");
        assert!(view.command("sh").args(["-c", &script]).status().unwrap().success());
        // The group itself, and one below it.
        for inner in ["", "/inner"] {
            let other = sleeper(view)
                .config(|c| c["linux"]["cgroupsPath"] = format!("{path}{inner}").into());
            other.refused().says(&["frozen"]);
        }
        assert!(view.command("rmdir").arg(&directory).status().unwrap().success(), "{view:?}");
    }
}
