//! `delete --force` ends, and leaves nothing that the host lets it remove, whatever the payload, a
//! crash or a full disk has done.

mod crashes;
mod crowds;
mod frozen;
mod places;
mod records;
mod strangers;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Bundle, Container, View, processes_of, reap, until};

/// A process of the host that has nothing to do with any container.
#[derive(Debug)]
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    #[track_caller]
    fn assert_alive(&mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "a process of the host has been killed");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A shell on the host as the view shows it.
#[track_caller]
fn shell(view: View, script: &str) -> String {
    let done = view.command("sh").args(["-ec", script]).output().unwrap();
    assert!(done.status.success(), "{view:?}: {script}: {done:?}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// Every group of the container, as the view shows them.
fn groups(c: &Container) -> Vec<PathBuf> {
    // Those of other tests come and go meanwhile.
    let find = format!("find /sys/fs/cgroup -type d -name {} 2>/dev/null || true", c.id);
    shell(c.bundle.view(), &find).lines().map(PathBuf::from).collect()
}

fn record(c: &Container) -> PathBuf {
    c.bundle.beside("state").join(&c.id).join("state.json")
}

/// Changes the record as somebody with an editor could.
fn edit(c: &Container, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&fs::read(record(c)).unwrap()).unwrap();
    change(&mut value);
    fs::write(record(c), value.to_string()).unwrap();
}

/// Two processes, of which the second outlives the first where it has no pid namespace.
fn two(view: View) -> Bundle {
    Bundle::busybox().in_view(view).script("sleep 1000 & echo ready; exec sleep 1001")
}

/// The processes with the mark of the container, by their command lines.
fn processes(c: &Container) -> Vec<String> {
    processes_of(c.bundle.mark()).iter().map(ToString::to_string).collect()
}

/// Deletes with force and finds nothing left.
#[track_caller]
fn delete_all(c: &Container) {
    c.delete_force();
    c.bundle.leftovers().assert_none_since();
    assert_eq!(processes(c), [""; 0]);
}

/// While the first process of a pid namespace ends, it waits for everything in the namespace, also
/// for what somebody outside has started there and does not reap.
#[test]
fn a_created_container_whose_init_is_killed_and_still_ends_never_seems_to_run() {
    let c = Bundle::busybox().args(["true"]).create();
    let script = "sleep 1000 & echo $!; exec sleep 1001";
    let mut enter = Command::new("nsenter");
    enter.args(["-t", &c.pid().to_string(), "-p", "-F", "sh", "-c", script]);
    let mut parent = Stranger(enter.stdout(Stdio::piped()).spawn().unwrap());
    let mut pid = String::new();
    BufReader::new(parent.0.stdout.as_mut().unwrap()).read_line(&mut pid).unwrap();
    c.rt(["kill", &c.id, "KILL"]).run().success();
    until("init ends", || c.status() != "created");
    assert_eq!(c.status(), "stopped");
    c.rt(["start", &c.id]).run().failure();
    let stuck = format!("process {} does not wait for process", parent.pid());
    c.rt(["delete", &c.id]).run().failure().one_line().says(&["does not end", &stuck]);
    drop(parent);
    reap(pid.trim().parse().unwrap(), Duration::from_secs(10));
    c.delete();
}
