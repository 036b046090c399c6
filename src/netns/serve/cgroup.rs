//! The cgroup of the helper. It must not stay in the cgroup of the container whose hook started it,
//! since the end of the container would kill it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sys;

const ROOT: &str = "/sys/fs/cgroup";
const GROUP: &str = "rt-netns";

/// Returns the helper's cgroup of version 2, or those of each hierarchy of version 1.
fn own_cgroups() -> Vec<PathBuf> {
    let root = PathBuf::from(ROOT);
    if root.join("cgroup.procs").exists() {
        return vec![root.join(GROUP)];
    }
    let entries = sys::list_directory(&root).unwrap_or_default().into_iter();
    // cpu and cpuacct are often links to one hierarchy, and count once.
    let real = entries.filter(|entry| entry.is_directory);
    real.map(|entry| root.join(entry.name).join(GROUP))
        .collect()
}

/// Moves this process into the helper's cgroups. If that is not allowed, it stays where it is.
pub(super) fn enter() {
    for group in own_cgroups() {
        if !make_and_go(&group, go) {
            let _ = fs::remove_dir(&group);
        }
    }
}

/// Makes the cgroup and moves into it, several times if need be: another helper that leaves may
/// remove the cgroup while it is still empty.
fn make_and_go(group: &Path, go: impl Fn(&Path) -> bool) -> bool {
    (0..5).any(|_| {
        make_cgroup(group);
        go(group)
    })
}

fn make_cgroup(group: &Path) {
    let _ = fs::create_dir(group);
    // A new cpuset of version 1 is empty, and takes no process until it has CPUs and memory nodes.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Some(parent) = group.parent()
            && let Ok(value) = fs::read(parent.join(file))
        {
            let _ = fs::write(group.join(file), value);
        }
    }
}

/// Moves this process into the root cgroups and removes the helper's cgroups, unless other helpers
/// are in them.
pub(super) fn leave() {
    for group in own_cgroups() {
        let _ = group.parent().map(go);
        let _ = fs::remove_dir(group);
    }
}

/// Moves this process, which has one thread, into the cgroup. Returns whether it is there. To move
/// another process, or to use `cgroup.procs` of a version 1 hierarchy, the kernel would first stop
/// every fork and exit of the host.
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
