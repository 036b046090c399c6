//! The groups of a container on every hierarchy, as its state records them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use super::group::{Group, with_controller};
use super::systemd::Unit;

/// The groups of one container on every hierarchy, as its state records them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    /// The host has version 2 alone, so that there is one group at most.
    pub(super) unified: bool,
    pub(super) groups: Vec<Group>,
    pub(super) owned: Owned,
    /// The scope whose groups they are, if systemd makes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<Unit>,
}

/// Whether `create` has succeeded, so that every process in the groups is the container's. Until
/// then they may be anybody's. Clones share it: the state's copy learns of it with the caller's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub(super) struct Owned(Arc<AtomicBool>);

impl Owned {
    /// Takes the groups for the container's.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl From<bool> for Owned {
    fn from(owned: bool) -> Self {
        Self(Arc::new(owned.into()))
    }
}

impl From<Owned> for bool {
    fn from(owned: Owned) -> Self {
        owned.0.load(Ordering::Relaxed)
    }
}

impl Cgroup {
    /// Whether the container has no group at all.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.groups.is_empty()
    }

    /// Whether the host has version 2 alone.
    pub(crate) fn is_unified(&self) -> bool {
        self.unified
    }

    /// Whether limits of `controller`, by its name on version 1, are those of version 2.
    pub(super) fn is_v2(&self, controller: &str) -> bool {
        self.v2().is_some() && with_controller(&self.groups, controller).is_none()
    }

    pub(super) fn v2(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.is_v2())
    }

    /// Takes the groups for the container's: they have been made for it.
    pub(crate) fn own(&self) {
        if self.unit.is_none() {
            self.owned.set();
        }
    }

    pub(super) fn own_groups(&self) -> &[Group] {
        if self.owned.clone().into() {
            &self.groups
        } else {
            &[]
        }
    }

    /// The group that can be frozen: that of the version 1 controller, else that of version 2.
    pub(super) fn freezer(&self) -> Option<&Group> {
        with_controller(&self.groups, "freezer").or_else(|| self.v2())
    }

    /// These groups, and those of `other` on hierarchies where there is none.
    pub(crate) fn with(mut self, other: Self) -> Self {
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
