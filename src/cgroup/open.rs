//! What the first process needs of its groups, held open while it is made.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result};
use nix::fcntl::AT_FDCWD;

use super::group::Group;
use super::{Limits, file};
use crate::sys;

/// Who can look at the descriptors of the process from its first moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    ByNobody,
    /// With CAP_SYS_PTRACE one can go through `/proc/PID/fd`, and from a directory to those above.
    ByContainer,
}

/// Groups that exist, open.
pub(crate) struct OpenCgroup {
    unified: bool,
    groups: Vec<OpenGroup>,
}

/// An open group. What is open is what the first process needs: on a host with version 2 alone
/// the directory, to be born in it; else `cgroup.procs`.
struct OpenGroup {
    group: Group,
    directory: Option<OwnedFd>,
    procs: Option<OwnedFd>,
}

impl OpenCgroup {
    pub(super) fn new(unified: bool, groups: &[Group], seen: Seen) -> Result<Self> {
        let open = |group: &Group| {
            let directory = unified.then(|| match seen {
                Seen::ByNobody => group.open(),
                Seen::ByContainer => alone(group),
            });
            let procs = (!unified).then(|| group.open_procs());
            let (directory, procs) = (directory.transpose()?, procs.transpose()?);
            Ok(OpenGroup { group: group.clone(), directory, procs })
        };
        let groups = groups.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { unified, groups })
    }

    /// The directory for `CLONE_INTO_CGROUP`; None unless the host has version 2 alone, since
    /// one call cannot enter the other hierarchies.
    pub(crate) fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.groups.first()?.directory.as_ref().map(AsFd::as_fd)
    }

    /// Puts process `pid` into every group where [`Self::clone_into`] cannot have put it.
    pub(crate) fn enter(&self, pid: i32) -> Result<()> {
        if self.unified { Ok(()) } else { self.enter_all(pid) }
    }

    /// Puts process `pid` into every group.
    pub(crate) fn enter_all(&self, pid: i32) -> Result<()> {
        let pid = pid.to_string();
        for OpenGroup { group, procs, .. } in &self.groups {
            let result = match procs {
                Some(procs) => file::write_to(procs, &pid),
                None => file::write_to(group.open_procs()?, &pid),
            };
            result.with_context(|| group.directory.join("cgroup.procs").display().to_string())?;
        }
        Ok(())
    }

    /// Writes all limits.
    pub(crate) fn apply(&self, limits: &Limits) -> Result<()> {
        let groups: Vec<Group> = self.groups.iter().map(|open| open.group.clone()).collect();
        super::apply(self.unified, &groups, limits)
    }
}

/// The group as a mount of its own, with nothing above it and not to be written.
fn alone(group: &Group) -> Result<OwnedFd> {
    let copy = || -> Result<OwnedFd> {
        let path = CString::new(group.directory.as_os_str().as_bytes())?;
        let tree = sys::open_tree(AT_FDCWD, &path, libc::OPEN_TREE_CLONE)?;
        sys::mount_setattr(tree.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0, 0)?;
        Ok(tree)
    };
    copy().with_context(|| group.directory.display().to_string())
}
