//! The cgroup of a container on one hierarchy.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::file;

/// A cgroup on one hierarchy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CgroupDir {
    /// As in `/proc/PID/cgroup`: `cpu,cpuacct`, `name=systemd`, or empty for version 2.
    pub(super) controllers: String,
    pub(super) directory: PathBuf,
    /// The deepest directory at or above `directory` that existed before the container. Everything
    /// below it is removed with the container.
    pub(super) existing: PathBuf,
}

impl CgroupDir {
    pub(super) fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    pub(super) fn has_controller(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }

    /// Whether the cgroup is in the version 1 hierarchy in which systemd keeps its units.
    pub(super) fn is_systemds(&self) -> bool {
        self.controllers == "name=systemd"
    }

    /// Whether systemd makes cgroups in this hierarchy: it knows six controllers of version 1.
    pub(super) fn is_managed(&self) -> bool {
        const KNOWN: [&str; 6] = ["cpu", "cpuacct", "blkio", "memory", "devices", "pids"];
        self.is_v2() || self.is_systemds() || KNOWN.iter().any(|name| self.has_controller(name))
    }

    pub(super) fn open(&self) -> Result<OwnedFd> {
        file::open(&self.directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .with_context(|| self.directory.display().to_string())
    }
}

/// Returns the version 1 cgroup among `cgroups` that has `controller`.
pub(super) fn with_controller<'a>(
    cgroups: &'a [CgroupDir],
    controller: &str,
) -> Option<&'a CgroupDir> {
    cgroups
        .iter()
        .find(|cgroup| cgroup.has_controller(controller))
}

/// Returns the directory beside a cgroup in which an update tries device rules. No container's id
/// contains a colon, so the name is free.
pub(super) fn trial(directory: &Path) -> PathBuf {
    let mut path = directory.as_os_str().to_owned();
    path.push(":trial");
    path.into()
}
