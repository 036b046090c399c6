//! What a record says is believed as far as the host agrees. It may have been cut by a full disk, come
//! from somewhere else or been changed: no process and no cgroup of others is touched for it.

use std::path::PathBuf;

use anyhow::{Result, bail};
use nix::sys::stat::stat;

use crate::cgroup::Cgroup;
use crate::container::state::{Container, ContainerRecord, CreateProgress};
use crate::log;

/// Leaves out what cannot be a cgroup at all, so that not even an empty directory of others goes.
pub(super) fn leave_out_misplaced(container: &mut Container) -> Vec<PathBuf> {
    container.record.cgroup.leave_out_misplaced()
}

/// The cgroups that are the container's beyond doubt, whose processes may be killed. Where the record
/// has others, they are those that the copy of the configuration says.
pub(crate) fn own_groups(container: &Container) -> Cgroup {
    let mut cgroup = container.record.cgroup.clone();
    let is_complete = !cgroup.is_nowhere();
    let expected = container.expected_groups();
    if cgroup.leave_out_foreign(&expected).is_empty() && is_complete {
        return cgroup;
    }
    let mut by_config = container.groups_by_config();
    by_config.leave_out_foreign(&expected);
    if cgroup.is_nowhere() {
        by_config
    } else {
        cgroup.with(by_config)
    }
}

/// Whether the groups of the record are where the container's have to be, at the first look: below
/// the usual places by the name of its id, or else as its configuration says.
pub(super) fn has_own_groups(container: &Container) -> bool {
    let ContainerRecord { id, cgroup, .. } = &container.record;
    cgroup.is_named(id)
        || cgroup
            .clone()
            .leave_out_foreign(&container.expected_groups())
            .is_empty()
}

/// Names what the record has and what is not the container's: it is left alone.
pub(super) fn warn(container: &Container, misplaced: &[PathBuf]) {
    let id = &container.record.id;
    let foreign = container
        .record
        .cgroup
        .clone()
        .leave_out_foreign(&container.expected_groups());
    for directory in misplaced.iter().chain(&foreign) {
        log::warn(format!(
            "{id}: not its cgroup, left alone: {}",
            directory.display()
        ));
    }
}

/// Refuses a process that the record calls init, and that is somebody else's: it is in none of the
/// container's cgroups, and not even its root says that it has only left them.
pub(crate) fn check_init(container: &Container) -> Result<()> {
    let record = &container.record;
    let Some(init) = record.init else {
        return Ok(());
    };
    let root = |path: &str| stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino));
    let is_in_rootfs = || {
        let own = root(&format!("/proc/{}/root/.", init.pid));
        own.is_some() && own == record.rootfs.to_str().and_then(root)
    };
    let is_known = match own_groups(container).includes(init.pid) {
        Some(true) | None => true,
        // Until `Go` it is in no group of version 1, and has not even a root of its own.
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

/// Whether the process runs the same program as this one, be it from another file.
fn is_runtime(pid: i32) -> bool {
    let size = |process: &str| Some(stat(&*format!("/proc/{process}/exe")).ok()?.st_size);
    let its = size(&pid.to_string());
    its.is_some() && its == size("self")
}
