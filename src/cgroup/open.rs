//! The open cgroups that a process needs to enter them, held while it is made.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;

use super::cgroup_dir::CgroupDir;
use super::cgroups::Cgroup;
use super::file;
use crate::sys;

/// Descriptors of existing cgroups, with which one process enters them.
#[derive(Default)]
pub struct OpenCgroup {
    /// The directory of the version 2 cgroup, for a clone directly into it.
    directory: Option<OwnedFd>,
    /// `tasks` of each version 1 cgroup but the one that counts processes. A process with a single
    /// thread that writes 0 there moves itself. This is the only move for which the kernel does not
    /// stop all forks and exits, which would take an RCU grace period of several milliseconds
    /// (Linux 5.5, 9a3284fad42f).
    tasks: Vec<(PathBuf, OwnedFd)>,
    /// `tasks` of the version 1 cgroup that counts processes, if there is one. A builder stays
    /// outside of it, so that it takes no process from the container's limit.
    pids: Option<(PathBuf, OwnedFd)>,
}

impl Cgroup {
    /// Opens existing cgroups.
    pub fn open(&self) -> Result<OpenCgroup> {
        OpenCgroup::new(&self.cgroups)
    }
}

impl OpenCgroup {
    fn new(cgroups: &[CgroupDir]) -> Result<Self> {
        let mut open = Self::default();
        for cgroup in cgroups {
            if cgroup.is_v2() {
                open.directory = Some(cgroup.open()?);
            } else {
                let path = cgroup.directory.join("tasks");
                let fd = file::open(&path, OFlag::O_WRONLY);
                let fd = fd.with_context(|| path.display().to_string())?;
                match cgroup.has_controller("pids") {
                    true => open.pids = Some((path, fd)),
                    false => open.tasks.push((path, fd)),
                }
            }
        }
        Ok(open)
    }

    /// If a builder and the process that it clones would exceed the limit of the version 2 cgroup
    /// (`pids.max`), neither is cloned into it. The returned entry lets the process in later: the
    /// kernel checks no limit for that, but it takes longer than a clone into the cgroup.
    pub fn leave_crowded(&mut self) -> Result<Option<LateEntry>> {
        let Some(directory) = self.directory.as_ref().filter(|cgroup| is_crowded(cgroup)) else {
            return Ok(None);
        };
        let procs = file::open_at(directory, "cgroup.procs", OFlag::O_WRONLY)?;
        self.directory = None;
        Ok(Some(LateEntry(procs)))
    }

    /// Returns the directory for `CLONE_INTO_CGROUP` if there is version 2.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().map(AsFd::as_fd)
    }

    /// In the new process: gives up the version 2 directory, which is closed there together with
    /// all other descriptors of the parent.
    pub fn forget_directory(&mut self) {
        std::mem::forget(self.directory.take());
    }

    /// Returns the descriptors that the process must keep open to enter.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.tasks
            .iter()
            .chain(&self.pids)
            .map(|(_, fd)| fd.as_raw_fd())
    }

    /// In the process: enters the cgroups that it was not cloned into, except the one that
    /// [`Self::enter_pids`] enters.
    pub fn enter(&mut self) -> Result<()> {
        self.tasks.iter().try_for_each(enter)?;
        self.close();
        Ok(())
    }

    /// In the process: enters the version 1 cgroup that counts processes, if there is one. The
    /// kernel checks the rights of the process that opened the file (since Linux 5.16), or lets a
    /// process move itself.
    pub fn enter_pids(&mut self) -> Result<()> {
        self.pids.take().as_ref().map_or(Ok(()), enter)
    }

    fn close(&mut self) {
        sys::close_together(self.tasks.drain(..).map(|(_, fd)| fd).collect());
    }
}

/// `cgroup.procs` of a version 2 cgroup.
pub struct LateEntry(OwnedFd);

impl LateEntry {
    /// Moves the process `pid` into the cgroup.
    pub fn admit(&self, pid: i32) -> Result<()> {
        file::write_to(&self.0, &pid.to_string()).context("cgroup.procs")
    }
}

/// Whether two more processes would exceed the limit. A cgroup without a limit, or without the
/// controller that counts processes, is never crowded.
fn is_crowded(cgroup: &OwnedFd) -> bool {
    let number = |name: &str| {
        let file = file::open_at(cgroup, name, OFlag::O_RDONLY).ok()?;
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
