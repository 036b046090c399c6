//! Removing the cgroups of a container.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::cgroup_dir::CgroupDir;
use super::cgroups::Cgroup;

/// How long `remove` waits for a cgroup that may be another container's.
const SHORT_PATIENCE: Duration = Duration::from_millis(200);

impl Cgroup {
    /// Removes the cgroups if nothing is in them. Returns false if something is or may be.
    pub fn remove_empty(&self) -> bool {
        if self.unit.is_some() {
            return self.cgroups.iter().all(|cgroup| !cgroup.directory.exists());
        }
        // A cgroup that existed before the container stays. Its processes would have to be read, so
        // it counts as used.
        let gone = |cgroup: &CgroupDir| {
            cgroup.existing != cgroup.directory && cgroup.remove(true, Instant::now()).is_ok()
        };
        // An init that was cloned into a cgroup just before its parent was killed may still be
        // exiting.
        self.owned && self.cgroups.iter().all(gone)
    }

    /// Removes all cgroups below the container's, its own, and those above that `create` made and
    /// nobody else uses. Waits until `deadline` for processes that are exiting. Missing cgroups are
    /// no error. A cgroup that existed before the container stays as it is.
    ///
    /// As long as `create` has not succeeded, only empty cgroups are removed, and it is no error if
    /// others stay.
    pub fn remove(&self, deadline: Instant) -> Result<()> {
        let owned = self.owned;
        if owned
            && self.unit_exists()
            && let Some(mut unit) = self.connect()?
        {
            unit.stop()?;
        }
        let deadline = if owned {
            deadline
        } else {
            Instant::now() + SHORT_PATIENCE
        };
        let remove = |cgroup: &CgroupDir| cgroup.remove(owned, deadline);
        // All cgroups are tried, also after an error.
        let results: Vec<Result<()>> = self.cgroups.iter().map(remove).collect();
        results.into_iter().collect()
    }

    /// Whether the scope exists. systemd removes it, and its cgroups, when its last process has
    /// ended.
    fn unit_exists(&self) -> bool {
        let mut of_systemd = self
            .cgroups
            .iter()
            .filter(|g| g.is_systemds() || self.unified);
        of_systemd.any(|cgroup| cgroup.directory.exists())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cgroups_is_a_state_of_its_own() {
        let none = Cgroup::default();
        assert!(none.pids().unwrap().is_empty());
        assert!(!none.is_frozen().unwrap());
        none.kill(Instant::now()).unwrap();
        none.remove(Instant::now()).unwrap();
    }
}
