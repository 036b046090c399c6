//! The groups of a container removed.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::group::Group;
use super::groups::Cgroup;

/// How long `remove` waits for a group that may be another container's.
const SHORT_PATIENCE: Duration = Duration::from_millis(200);

impl Cgroup {
    /// Removes the groups if nothing is in them; false if something is or may be.
    pub(crate) fn remove_empty(&self) -> bool {
        if self.unit.is_some() {
            return self.groups.iter().all(|group| !group.directory.exists());
        }
        // A group that was there before the container stays, and only a look at it tells.
        let gone = |group: &Group| {
            group.existing != group.directory && group.remove(true, Instant::now()).is_ok()
        };
        // An init that was born in a group just before its caller was killed may still be going.
        self.owned.clone().into() && self.groups.iter().all(gone)
    }

    /// Removes sub-groups, groups, and those above that `create` made and nobody else uses. It
    /// waits until `deadline` for processes that are just going. Missing groups are success. A group
    /// that was there before the container stays as it is.
    /// As long as `create` has not succeeded, only what is empty goes, and the rest is no error.
    pub(crate) fn remove(&self, deadline: Instant) -> Result<()> {
        let owned = bool::from(self.owned.clone());
        if let Some(unit) = self.unit.as_ref().filter(|_| owned && self.unit_exists()) {
            unit.stop()?;
        }
        let deadline = if owned {
            deadline
        } else {
            Instant::now() + SHORT_PATIENCE
        };
        let remove = |group: &Group| group.remove(owned, deadline);
        // All of them, also after an error.
        let results: Vec<Result<()>> = self.groups.iter().map(remove).collect();
        results.into_iter().collect()
    }

    /// systemd takes a scope away when its last process has gone, and its groups with it.
    fn unit_exists(&self) -> bool {
        let mut of_systemd = self
            .groups
            .iter()
            .filter(|g| g.is_systemds() || self.unified);
        of_systemd.any(|group| group.directory.exists())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_groups_is_a_state_of_its_own() {
        let none = Cgroup::default();
        assert!(none.pids().unwrap().is_empty());
        assert!(!none.is_frozen().unwrap());
        none.kill(Instant::now()).unwrap();
        none.remove(Instant::now()).unwrap();
    }
}
