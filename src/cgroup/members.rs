//! The processes of groups and of the groups below them.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::group::Group;
use super::groups::Cgroup;
use super::{file, walk};

/// All processes, sorted, each once.
pub(super) fn pids(groups: &[Group]) -> Result<Vec<i32>> {
    let mut pids = BTreeSet::new();
    for group in groups {
        walk::visit(&group.directory, |directory| {
            match file::open_at(directory, "cgroup.procs", OFlag::O_RDONLY).and_then(file::read_all)
            {
                // A pid of 0 is a process that this pid namespace does not show.
                Ok(text) => pids.extend(
                    text.lines()
                        .filter_map(|line| line.parse().ok())
                        .filter(|pid: &i32| *pid > 0),
                ),
                // A threaded group: its processes are listed in the group above.
                Err(Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
            Ok(())
        })
        .with_context(|| group.directory.display().to_string())?;
    }
    Ok(pids.into_iter().collect())
}

impl Group {
    pub(super) fn refuse_processes(&self) -> Result<()> {
        match pids(std::slice::from_ref(self))?.len() {
            0 => Ok(()),
            count => bail!(
                "container's cgroup is not empty: {count} process(es) found in {}",
                self.directory.display()
            ),
        }
    }
}

impl Cgroup {
    /// Every process of the groups and their sub-groups, as host pids, sorted, each once. A
    /// missing group has none.
    pub(crate) fn pids(&self) -> Result<Vec<i32>> {
        pids(&self.groups)
    }

    /// The first group with processes if nobody in the groups is the container's.
    pub(crate) fn used_by_others(&self) -> Result<Option<&Path>> {
        if self.owned.clone().into() {
            return Ok(None);
        }
        for group in &self.groups {
            if !pids(std::slice::from_ref(group))?.is_empty() {
                return Ok(Some(&group.directory));
            }
        }
        Ok(None)
    }
}
