//! The cgroups of a container on every hierarchy, as its record stores them.

use serde::{Deserialize, Serialize};

use super::cgroup_dir::{CgroupDir, with_controller};
use super::systemd::Unit;

/// The cgroups of one container on every hierarchy, as its record stores them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cgroup {
    /// Whether the host has version 2 alone, so that there is one cgroup at most.
    pub(super) unified: bool,
    #[serde(rename = "groups")]
    pub(super) cgroups: Vec<CgroupDir>,
    /// Whether `create` has succeeded, so that every process in the cgroups is the container's;
    /// before that it may be anybody's.
    pub(super) owned: bool,
    /// The systemd scope whose cgroups they are, if systemd makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<Unit>,
}

impl Cgroup {
    /// Whether the container has no cgroup at all.
    pub fn is_nowhere(&self) -> bool {
        self.cgroups.is_empty()
    }

    /// Whether the host has version 2 alone.
    pub fn is_unified(&self) -> bool {
        self.unified
    }

    /// Whether limits of `controller`, by its name on version 1, are written to the version 2
    /// cgroup.
    pub(super) fn is_v2(&self, controller: &str) -> bool {
        self.v2().is_some() && with_controller(&self.cgroups, controller).is_none()
    }

    pub(super) fn v2(&self) -> Option<&CgroupDir> {
        self.cgroups.iter().find(|cgroup| cgroup.is_v2())
    }

    /// Marks the cgroups as the container's, because they have been made for it; not those that
    /// systemd makes.
    pub fn own(&mut self) {
        self.owned |= self.unit.is_none();
    }

    pub(super) fn own_cgroups(&self) -> &[CgroupDir] {
        if self.owned { &self.cgroups } else { &[] }
    }

    /// Returns the cgroup that can be frozen: that of the version 1 controller, else that of
    /// version 2.
    pub(super) fn freezer(&self) -> Option<&CgroupDir> {
        with_controller(&self.cgroups, "freezer").or_else(|| self.v2())
    }

    /// Returns these cgroups, with those of `other` on hierarchies where these have none.
    pub fn with(mut self, other: Self) -> Self {
        let has = |cgroup: &CgroupDir| {
            self.cgroups
                .iter()
                .any(|own| own.controllers == cgroup.controllers)
        };
        let missing: Vec<CgroupDir> = other
            .cgroups
            .iter()
            .filter(|cgroup| !has(cgroup))
            .cloned()
            .collect();
        self.cgroups.extend(missing);
        self
    }
}
