//! The cgroups of a container on every hierarchy, as its record stores them.

use serde::{Deserialize, Serialize};

use super::group::{Group, with_controller};
use super::systemd::Unit;

/// The cgroups of one container on every hierarchy, as its record stores them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cgroup {
    /// Whether the host has version 2 alone, so that there is one cgroup at most.
    pub(super) unified: bool,
    pub(super) groups: Vec<Group>,
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
        self.groups.is_empty()
    }

    /// Whether the host has version 2 alone.
    pub fn is_unified(&self) -> bool {
        self.unified
    }

    /// Whether limits of `controller`, by its name on version 1, are written to the version 2
    /// cgroup.
    pub(super) fn is_v2(&self, controller: &str) -> bool {
        self.v2().is_some() && with_controller(&self.groups, controller).is_none()
    }

    pub(super) fn v2(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.is_v2())
    }

    /// Marks the cgroups as the container's, because they have been made for it; not those that
    /// systemd makes.
    pub fn own(&mut self) {
        self.owned |= self.unit.is_none();
    }

    pub(super) fn own_groups(&self) -> &[Group] {
        if self.owned { &self.groups } else { &[] }
    }

    /// Returns the cgroup that can be frozen: that of the version 1 controller, else that of
    /// version 2.
    pub(super) fn freezer(&self) -> Option<&Group> {
        with_controller(&self.groups, "freezer").or_else(|| self.v2())
    }

    /// Returns these cgroups, with those of `other` on hierarchies where these have none.
    pub fn with(mut self, other: Self) -> Self {
        let has = |group: &Group| {
            self.groups
                .iter()
                .any(|own| own.controllers == group.controllers)
        };
        let missing: Vec<Group> = other
            .groups
            .iter()
            .filter(|group| !has(group))
            .cloned()
            .collect();
        self.groups.extend(missing);
        self
    }
}
