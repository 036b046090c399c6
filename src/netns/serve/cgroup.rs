//! The helper's place among control groups: its own, and not the container's whose hook started
//! it, or the container's end would be the helper's.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sys;

const ROOT: &str = "/sys/fs/cgroup";
const GROUP: &str = "rt-netns";

/// The group in the one hierarchy, or in each of the old ones.
fn groups() -> Vec<PathBuf> {
    let root = PathBuf::from(ROOT);
    if root.join("cgroup.procs").exists() {
        return vec![root.join(GROUP)];
    }
    let entries = sys::list_directory(&root).unwrap_or_default().into_iter();
    // cpu and cpuacct are often links to one hierarchy.
    let real = entries.filter(|entry| entry.is_directory);
    real.map(|entry| root.join(entry.name).join(GROUP))
        .collect()
}

/// This process leaves for the helper's groups; where that is not allowed it stays where it is.
pub(super) fn enter() {
    for group in groups() {
        if !make_and_go(&group, go) {
            let _ = fs::remove_dir(&group);
        }
    }
}

/// Again if need be: a helper that leaves may remove the group while there is nobody in it yet.
fn make_and_go(group: &Path, go: impl Fn(&Path) -> bool) -> bool {
    (0..5).any(|_| {
        make(group);
        go(group)
    })
}

fn make(group: &Path) {
    let _ = fs::create_dir(group);
    // A cpuset has nothing to begin with, and takes nobody then.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Some(parent) = group.parent()
            && let Ok(value) = fs::read(parent.join(file))
        {
            let _ = fs::write(group.join(file), value);
        }
    }
}

/// Back to the roots and the groups removed, unless there are other helpers in them.
pub(super) fn leave() {
    for group in groups() {
        let _ = group.parent().map(go);
        let _ = fs::remove_dir(group);
    }
}

/// Says whether this process, of one thread, is in the group now. To move any other one, or by
/// `cgroup.procs` of a v1 hierarchy, the kernel would first stop every fork and exit of the host.
fn go(group: &Path) -> bool {
    let tasks = group.join("tasks");
    let list = if tasks.exists() {
        tasks
    } else {
        group.join("cgroup.procs")
    };
    fs::write(list, "0").is_ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_group_that_is_removed_before_there_is_somebody_in_it_is_made_again() {
        let group = std::env::temp_dir().join(format!("rt-control-{}", std::process::id()));
        let removed = Cell::new(false);
        let go = |group: &Path| {
            if !removed.replace(true) {
                fs::remove_dir(group).unwrap();
            }
            group.exists()
        };
        assert!(make_and_go(&group, go));
        fs::remove_dir(&group).unwrap();
        assert!(!make_and_go(&group, |_| false), "it is not tried for ever");
        fs::remove_dir(&group).unwrap();
    }
}
