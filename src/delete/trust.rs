//! Checks a record against the host before anything is killed or removed because of it. A record
//! may be truncated by a full disk, be copied from elsewhere, or have been changed; no process and
//! no cgroup that does not belong to the container may be touched because of that.

use std::path::PathBuf;

use anyhow::{Result, bail};
use nix::sys::stat::stat;

use crate::cgroup::Cgroup;
use crate::container::state::{Container, ContainerRecord, CreateProgress};
use crate::log;

/// Leaves out the cgroups of the record that are in no hierarchy of cgroups, so that no other
/// directory is removed, even if it is empty. Returns their paths.
pub(super) fn leave_out_misplaced(container: &mut Container) -> Vec<PathBuf> {
    container.record.cgroup.leave_out_misplaced()
}

/// Returns the cgroups that certainly belong to the container, so that their processes may be
/// killed. If the record has none, or has others, these are replaced by the cgroups that follow
/// from the copy of the configuration.
pub fn own_cgroups(container: &Container) -> Cgroup {
    let mut cgroup = container.record.cgroup.clone();
    let is_complete = !cgroup.is_nowhere();
    let expected = container.expected_cgroups();
    if cgroup.leave_out_foreign(&expected).is_empty() && is_complete {
        return cgroup;
    }
    let mut by_config = container.cgroups_by_config();
    by_config.leave_out_foreign(&expected);
    if cgroup.is_nowhere() {
        by_config
    } else {
        cgroup.with(by_config)
    }
}

/// Whether the cgroups of the record are where those of the container have to be: all have the name
/// of the container's id, or are where its configuration puts them.
pub(super) fn has_own_cgroups(container: &Container) -> bool {
    let ContainerRecord { id, cgroup, .. } = &container.record;
    cgroup.is_named(id)
        || cgroup
            .clone()
            .leave_out_foreign(&container.expected_cgroups())
            .is_empty()
}

/// Warns about each cgroup in the record that does not belong to the container: it is left alone.
pub(super) fn warn(container: &Container, misplaced: &[PathBuf]) {
    let id = &container.record.id;
    let foreign = container
        .record
        .cgroup
        .clone()
        .leave_out_foreign(&container.expected_cgroups());
    for directory in misplaced.iter().chain(&foreign) {
        log::warn(format!(
            "{id}: not its cgroup, left alone: {}",
            directory.display()
        ));
    }
}

/// Checks that the process that the record names as init belongs to the container.
///
/// # Errors
/// If it is in none of the container's cgroups, and its root directory is not that of the container
/// either (a process of the container may have left the cgroups).
pub fn check_init(container: &Container) -> Result<()> {
    let record = &container.record;
    let Some(init) = record.init else {
        return Ok(());
    };
    let root = |path: &str| stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino));
    let is_in_rootfs = || {
        let own = root(&format!("/proc/{}/root/.", init.pid));
        own.is_some() && own == record.rootfs.to_str().and_then(root)
    };
    let is_known = match own_cgroups(container).includes(init.pid) {
        Some(true) | None => true,
        // Before Go init is in no cgroup of version 1, and still has the root directory of the
        // host.
        Some(false) if record.progress == CreateProgress::Creating => is_runtime(init.pid),
        Some(false) => is_in_rootfs(),
    };
    if !is_known {
        bail!(
            "{}: process {} is not in its cgroups, left alone",
            record.id,
            init.pid
        );
    }
    Ok(())
}

/// Whether the process runs the same program as this one, also from another file: both have the
/// same size.
fn is_runtime(pid: i32) -> bool {
    let size = |process: &str| Some(stat(&*format!("/proc/{process}/exe")).ok()?.st_size);
    let its = size(&pid.to_string());
    its.is_some() && its == size("self")
}
