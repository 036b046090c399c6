//! The helper's place among control groups: its own, and not the container's whose hook started
//! it, or the container's end would be the helper's.

use std::fs;
use std::path::PathBuf;

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

/// Moves the process; where that is not allowed it stays where it is.
pub(super) fn separate(pid: u32) {
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
        if fs::write(group.join("cgroup.procs"), pid.to_string()).is_err() {
            let _ = fs::remove_dir(&group);
        }
    }
}

/// Removes the groups if the last helper has left them.
pub(super) fn remove_group() {
    for group in groups() {
        let _ = fs::remove_dir(group);
    }
}
