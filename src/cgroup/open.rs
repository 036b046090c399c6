//! What a process needs to get into its groups, held open while it is made.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;

use super::file;
use super::group::Group;
use super::groups::Cgroup;
use crate::sys;

/// Groups that exist, open: the way in for one process.
#[derive(Default)]
pub(crate) struct OpenCgroup {
    /// The directory of the version 2 group, to be born in it.
    directory: Option<OwnedFd>,
    /// `tasks` of each version 1 group. A process that is one thread and writes 0 there moves
    /// itself, which is the one move for which the kernel does not stop all forks and exits:
    /// that takes an RCU grace period, several milliseconds (Linux 5.5, 9a3284fad42f).
    tasks: Vec<(PathBuf, OwnedFd)>,
    /// `tasks` of the group that counts processes, where that is a version 1 group. A builder stays
    /// outside of it, so that it takes no process from the container's limit.
    pids: Option<(PathBuf, OwnedFd)>,
}

impl Cgroup {
    /// Opens groups that exist.
    pub(crate) fn open(&self) -> Result<OpenCgroup> {
        OpenCgroup::new(&self.groups)
    }
}

impl OpenCgroup {
    fn new(groups: &[Group]) -> Result<Self> {
        let mut open = Self::default();
        for group in groups {
            if group.is_v2() {
                open.directory = Some(group.open()?);
            } else {
                let path = group.directory.join("tasks");
                let fd = file::open(&path, OFlag::O_WRONLY);
                let fd = fd.with_context(|| path.display().to_string())?;
                match group.has_controller("pids") {
                    true => open.pids = Some((path, fd)),
                    false => open.tasks.push((path, fd)),
                }
            }
        }
        Ok(open)
    }

    /// Where a builder and the process that it clones are more than version 2's group has room for
    /// (`pids.max`), neither is born in it, and what comes back lets the process in later: for that
    /// the kernel asks for no room, but for more time than for a birth.
    pub(crate) fn leave_crowded(&mut self) -> Result<Option<LateEntry>> {
        let Some(directory) = self.directory.as_ref().filter(|group| is_crowded(group)) else {
            return Ok(None);
        };
        let procs = file::open_at(directory, "cgroup.procs", OFlag::O_WRONLY)?;
        self.directory = None;
        Ok(Some(LateEntry(procs)))
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
        self.tasks
            .iter()
            .chain(&self.pids)
            .map(|(_, fd)| fd.as_raw_fd())
    }

    /// In the process: enters the groups that it was not born in, but for the one that
    /// [`Self::enter_pids`] enters.
    pub(crate) fn enter(&mut self) -> Result<()> {
        self.tasks.iter().try_for_each(enter)?;
        self.close();
        Ok(())
    }

    /// In the process: enters the version 1 group that counts processes, if there is one. The
    /// kernel asks for the rights of who has opened the file (Linux 5.16), or lets a process move
    /// itself.
    pub(crate) fn enter_pids(&mut self) -> Result<()> {
        self.pids.take().as_ref().map_or(Ok(()), enter)
    }

    fn close(&mut self) {
        sys::close_together(self.tasks.drain(..).map(|(_, fd)| fd).collect());
    }
}

/// `cgroup.procs` of a group of version 2.
pub(crate) struct LateEntry(OwnedFd);

impl LateEntry {
    /// Moves the process `pid` into the group.
    pub(crate) fn admit(&self, pid: i32) -> Result<()> {
        file::write_to(&self.0, &pid.to_string()).context("cgroup.procs")
    }
}

/// Whether two processes more would be too many. A group without a limit, or without the controller
/// that counts processes, is never crowded.
fn is_crowded(group: &OwnedFd) -> bool {
    let number = |name: &str| {
        let file = file::open_at(group, name, OFlag::O_RDONLY).ok()?;
        file::read_all(file).ok()?.trim().parse::<u64>().ok()
    };
    let limit = number("pids.max");
    limit.is_some_and(|limit| number("pids.current").is_some_and(|now| now + 2 > limit))
}

impl Drop for OpenCgroup {
    fn drop(&mut self) {
        self.close();
    }
}

fn enter((path, tasks): &(PathBuf, OwnedFd)) -> Result<()> {
    file::write_to(tasks, "0").with_context(|| path.display().to_string())
}
