//! The helper's place among control groups: its own, and not the container's whose hook started
//! it, or the container's end would be the helper's.

use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
const GROUP: &str = "rt-netns";

/// The group in the one hierarchy, or in each of the old ones.
fn groups() -> Vec<PathBuf> {
    let root = PathBuf::from(ROOT);
    if root.join("cgroup.procs").exists() {
        return vec![root.join(GROUP)];
    }
    let entries = fs::read_dir(&root).into_iter().flatten().flatten();
    // cpu and cpuacct are often links to one hierarchy.
    let real = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    real.map(|entry| entry.path().join(GROUP)).collect()
}

/// This process leaves for the helper's groups; where that is not allowed it stays where it is.
pub(super) fn enter() {
    for group in groups() {
        let _ = fs::create_dir(&group);
        // A cpuset has nothing to begin with, and takes nobody then.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Some(parent) = group.parent()
                && let Ok(value) = fs::read(parent.join(file))
            {
                let _ = fs::write(group.join(file), value);
            }
        }
        if !go(&group) {
            let _ = fs::remove_dir(&group);
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
    let list = if tasks.exists() { tasks } else { group.join("cgroup.procs") };
    fs::write(list, "0").is_ok()
}
