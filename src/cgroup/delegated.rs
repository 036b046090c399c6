//! The group below a container's own that its process starts in: there the payload does as it
//! likes, and the limits stay out of its reach.

use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::{Context, Result};

use super::group::{Group, Made};
use super::{Cgroup, file, v2};

/// What cgroups(7) "Delegation" gives away besides the directory.
const FILES: [&str; 4] = ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];

impl Cgroup {
    /// Makes the group `path` below the container's, moves process `pid` there and enables what
    /// controllers there are. `owner` is the root of the container's user namespace.
    pub(crate) fn delegate(&self, path: &Path, pid: i32, owner: Option<[u32; 2]>) -> Result<()> {
        let own = self.v2().context("the container has no group")?;
        let directory = own.directory.join(path);
        let context = || directory.display().to_string();
        let group =
            Group { directory: directory.clone(), existing: own.directory.clone(), ..own.clone() };
        let mut made = Made::default();
        group.make_missing(&mut made)?;
        file::write(&directory.join("cgroup.procs"), &pid.to_string()).with_context(context)?;
        // It goes with the container's group.
        made.keep();
        v2::enable_controllers(&directory)?;
        if let Some([uid, gid]) = owner {
            for name in FILES {
                chown(directory.join(name), Some(uid), Some(gid)).with_context(context)?;
            }
        }
        Ok(())
    }
}
