//! The processes of cgroups and of the cgroups below them.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::cgroup_dir::CgroupDir;
use super::cgroups::Cgroup;
use super::{file, walk};

/// Returns all processes, sorted, each once.
pub(super) fn pids(cgroups: &[CgroupDir]) -> Result<Vec<i32>> {
    let mut pids = BTreeSet::new();
    for cgroup in cgroups {
        walk::visit(&cgroup.directory, |directory| {
            match file::open_at(directory, "cgroup.procs", OFlag::O_RDONLY).and_then(file::read_all)
            {
                // A pid of 0 stands for a process that is not visible in this pid namespace.
                Ok(text) => pids.extend(
                    text.lines()
                        .filter_map(|line| line.parse().ok())
                        .filter(|pid: &i32| *pid > 0),
                ),
                // In a threaded cgroup: its processes are listed in the cgroup above.
                Err(Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
            Ok(())
        })
        .with_context(|| cgroup.directory.display().to_string())?;
    }
    Ok(pids.into_iter().collect())
}

impl CgroupDir {
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
    /// Returns every process of the cgroups and of those below them, as host pids, sorted, each
    /// once. A missing cgroup has none.
    pub fn pids(&self) -> Result<Vec<i32>> {
        pids(&self.cgroups)
    }

    /// Returns the first cgroup with processes if the cgroups are not marked as the container's.
    pub fn used_by_others(&self) -> Result<Option<&Path>> {
        if self.owned {
            return Ok(None);
        }
        for cgroup in &self.cgroups {
            if !pids(std::slice::from_ref(cgroup))?.is_empty() {
                return Ok(Some(&cgroup.directory));
            }
        }
        Ok(None)
    }
}
