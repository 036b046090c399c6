//! The group of a container on one hierarchy.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::file;

/// The group on one hierarchy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Group {
    /// As in `/proc/PID/cgroup`: `cpu,cpuacct`, `name=systemd`, or nothing for version 2.
    pub(super) controllers: String,
    pub(super) directory: PathBuf,
    /// The deepest directory at or above `directory` that was there before the container:
    /// everything below it is removed with the container.
    pub(super) existing: PathBuf,
}

impl Group {
    pub(super) fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    pub(super) fn has_controller(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }

    /// Whether it is in the hierarchy in which systemd keeps its units on version 1.
    pub(super) fn is_systemds(&self) -> bool {
        self.controllers == "name=systemd"
    }

    /// Whether systemd makes groups in the hierarchy: it knows six controllers of version 1.
    pub(super) fn is_managed(&self) -> bool {
        const KNOWN: [&str; 6] = ["cpu", "cpuacct", "blkio", "memory", "devices", "pids"];
        self.is_v2() || self.is_systemds() || KNOWN.iter().any(|name| self.has_controller(name))
    }

    pub(super) fn open(&self) -> Result<OwnedFd> {
        file::open(&self.directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .with_context(|| self.directory.display().to_string())
    }
}

/// The group of version 1 among `groups` that has `controller`.
pub(super) fn with_controller<'a>(groups: &'a [Group], controller: &str) -> Option<&'a Group> {
    groups.iter().find(|group| group.has_controller(controller))
}

/// The directory beside a group in which an update tries rules for devices. No container's id has a
/// colon in it.
pub(super) fn trial(directory: &Path) -> PathBuf {
    let mut path = directory.as_os_str().to_owned();
    path.push(":trial");
    path.into()
}
