//! Cgroups on every view of the host: created, entered, limited, removed.

mod devices;
mod events;
mod fields;
mod freezer;
mod hierarchies;
mod limits;
mod members;
mod mounts;
mod places;
mod update;

use std::fs;

use crate::harness::{Bundle, Container, View};
use hierarchies::{Files, Setup, place, v2_weight};
pub(crate) use hierarchies::{has, has_systemd, views_with};

/// The file of a controller for this container's init, as the view shows it, or `None` where the
/// view has no such controller.
fn file(c: &Container, view: View, controller: &str, name: &str) -> Option<String> {
    let script = format!(
        "line=$(grep -E '^[0-9]+:([^:]*,)?{controller}(,[^:]*)?:' /proc/{pid}/cgroup)
        if [ \"$line\" ]; then
            dir=/sys/fs/cgroup/{controller}${{line##*:}}
        else
            line=$(grep '^0::' /proc/{pid}/cgroup)
            dir=/sys/fs/cgroup${{line##*:}}
            [ -e \"$dir/cgroup.procs\" ] || dir=/sys/fs/cgroup/unified${{line##*:}}
        fi
        cat \"$dir/{name}\"",
        pid = c.pid()
    );
    let done = view.command("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    done.status.success().then(|| text.trim().to_owned())
}

/// The v2 hierarchy is the only one: v1 files have other names.
fn is_v2(view: View) -> bool {
    let test = view.command("test").args(["-e", "/sys/fs/cgroup/cgroup.procs"]).status().unwrap();
    test.success()
}

fn sleeper(view: View) -> Bundle {
    Bundle::busybox().in_view(view).args(["sleep", "1000"])
}

/// Where the container is in version 2, or in version 1's hierarchy of pids. In a private view of
/// version 2 the kernel lists the hierarchies of version 1 nevertheless.
fn cgroup_path(c: &Container, view: View) -> String {
    let mark = if is_v2(view) { "0::" } else { ":pids:" };
    let text = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    let path = text.lines().find_map(|line| Some(line.split_once(mark)?.1)).unwrap();
    assert!(path.len() > 1, "{path} is the root");
    path.to_owned()
}
