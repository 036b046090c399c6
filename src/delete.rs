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
    let container = match Container::find(root, id)? {
        Some(container) => container,
        None if force_it => return Ok(()),
        None => bail!("{id}: container does not exist"),
    };
    let _lock = match container.lock() {
        // Somebody else removed it while we waited for the lock.
        Err(_) if force_it && Container::find(root, id)?.is_none() => return Ok(()),
        result => result?,
    };
    // Read again: what stood there before the lock may be out of date.
    let Some(container) = Container::find(root, id)? else { return Ok(()) };
    let (status, _) = container.status()?;
    if !force_it && !matches!(status, Status::Stopped | Status::Created | Status::Creating) {
        bail!("{id}: cannot delete container that is not stopped: {status}");
    }
    force(&container)
}

/// Ends the container, if it lives, and removes it. The lock must be held.
pub(crate) fn force(container: &Container) -> Result<()> {
    let (_, init) = container.status()?;
    if let Some(init) = init {
        end(&init, &container.record.id)?;
    }
    clean_up(container)
}

fn end(init: &OwnedFd, id: &str) -> Result<()> {
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
    cgroup.kill().phase(Phase::Cgroup)?;
    cgroup.remove().phase(Phase::Cgroup)?;
    container.remove().phase(Phase::State)
}
