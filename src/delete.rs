//! `delete`: takes away what `create` made, from the record alone, whatever became of the
//! container and however far its creation had come.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{InPhase, Phase};
use crate::state::{Container, Status};
use crate::sys;

/// How long a killed process may take to end, in milliseconds.
const KILL_LIMIT_MS: u16 = 10_000;

/// `rt delete`. With `force` also a running one, and one that does not exist.
pub(crate) fn command(root: &Path, id: &str, force_it: bool) -> Result<()> {
    let (container, _lock) = match Container::open_locked(root, id)? {
        Some(locked) => locked,
        None if force_it => return Ok(()),
        None => bail!("{id}: container does not exist"),
    };
    let (status, init) = container.status()?;
    if !force_it && !matches!(status, Status::Stopped | Status::Created | Status::Creating) {
        bail!("{id}: cannot delete container that is not stopped: {status}");
    }
    if let Some(init) = init {
        end(&init, id)?;
    }
    clean_up(&container)
}

/// Waits for the end of init after SIGKILL.
pub(crate) fn end(init: &OwnedFd, id: &str) -> Result<()> {
    match sys::pidfd_send_signal(init.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut fds = [PollFd::new(init.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(KILL_LIMIT_MS))? {
        0 => bail!("{id}: init does not end: is it frozen, or stuck in the kernel?"),
        _ => Ok(()),
    }
}

/// Removes what is left once init is gone: other processes, cgroups, the directory, in this
/// order, so that a failure leaves the record for another try.
pub(crate) fn clean_up(container: &Container) -> Result<()> {
    let cgroup = &container.record.cgroup;
    // Mostly init was the last one, and the groups just go.
    if !cgroup.remove_empty() {
        cgroup.kill().phase(Phase::Cgroup)?;
        cgroup.remove().phase(Phase::Cgroup)?;
    }
    container.remove().phase(Phase::State)
}
