//! What a process needs to get into its groups, held open while it is made.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::fcntl::{AT_FDCWD, OFlag};

use super::file;
use super::group::Group;
use crate::sys;

/// Who can look at the descriptors of the process from its first moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    ByNobody,
    /// With CAP_SYS_PTRACE one can go through `/proc/PID/fd`, and from a directory to those above.
    ByContainer,
}

/// Groups that exist, open: the way in for one process.
#[derive(Default)]
pub(crate) struct OpenCgroup {
    /// The directory of the version 2 group, to be born in it.
    directory: Option<OwnedFd>,
    /// `tasks` of each version 1 group. A process that is one thread and writes 0 there moves
    /// itself, which is the one move for which the kernel does not stop all forks and exits:
    /// that takes an RCU grace period, several milliseconds (Linux 5.5, 9a3284fad42f).
    tasks: Vec<(PathBuf, OwnedFd)>,
}

impl OpenCgroup {
    pub(super) fn new(groups: &[Group], seen: Seen) -> Result<Self> {
        let mut open = Self::default();
        for group in groups {
            if group.is_v2() {
                let directory = if seen == Seen::ByNobody { group.open()? } else { alone(group)? };
                open.directory = Some(directory);
            } else {
                let path = group.directory.join("tasks");
                let fd = file::open(&path, OFlag::O_WRONLY);
                let fd = fd.with_context(|| path.display().to_string())?;
                open.tasks.push((path, fd));
            }
        }
        Ok(open)
    }

    /// The directory for `CLONE_INTO_CGROUP`, where there is version 2.
    pub(crate) fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    /// In the process, which closes the directory with all else of the caller's.
    pub(crate) fn born(mut self) -> Self {
        std::mem::forget(self.directory.take());
        self
    }

    /// What the process must keep open to enter.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.tasks.iter().map(|(_, fd)| fd.as_raw_fd())
    }

    /// In the process: enters the groups that it was not born in.
    pub(crate) fn enter(self) -> Result<()> {
        for (path, fd) in &self.tasks {
            file::write_to(fd, "0").with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

impl Drop for OpenCgroup {
    fn drop(&mut self) {
        sys::close_together(self.tasks.drain(..).map(|(_, fd)| fd).collect());
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
