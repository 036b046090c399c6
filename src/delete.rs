//! `delete`: takes away what `create` made, from the record alone, whatever became of the
//! container and however far its creation had come.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{InPhase, Phase, line};
use crate::hooks::{Hooks, Kind};
use crate::state::{self, Container, Status};
use crate::{log, sys};

/// How long a killed process may take to end, in milliseconds.
const KILL_LIMIT_MS: u16 = 10_000;

/// `rt delete`. With `force` also a running one, and one that does not exist.
pub(crate) fn command(root: &Path, id: &str, force: bool) -> Result<()> {
    if force {
        // Before the lock: a create or start that is stuck on this init gives it back then.
        end_init(root, id)?;
    }
    let (container, _lock) = match Container::open_locked(root, id)? {
        Some(locked) => locked,
        None if force => return Ok(()),
        None => return Err(state::missing(id)),
    };
    let (status, init) = container.status()?;
    if !force && !matches!(status, Status::Stopped | Status::Created | Status::Creating) {
        bail!("cannot delete container {id} that is not stopped: {status}");
    }
    if let Some(init) = init {
        end(&container, &init)?;
    }
    clean_up(&container)
}

fn end_init(root: &Path, id: &str) -> Result<()> {
    let Some(container) = Container::find(root, id)? else { return Ok(()) };
    match container.status()? {
        (_, Some(init)) => end(&container, &init),
        _ => Ok(()),
    }
}

/// Kills init and waits for its end.
pub(crate) fn end(container: &Container, init: &OwnedFd) -> Result<()> {
    match sys::pidfd_send_signal(init.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => return Err(errno.into()),
    }
    if container.record.cgroup.is_frozen()? {
        // A frozen process does not even die, and who is frozen is thawed by this.
        container.record.cgroup.kill().phase(Phase::Cgroup)?;
    }
    let mut fds = [PollFd::new(init.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::from(KILL_LIMIT_MS))? {
        0 => bail!("{}: init does not end: it is stuck in the kernel", container.record.id),
        _ => Ok(()),
    }
}

/// Removes what is left once init is gone: other processes, cgroups, what poststop hooks clean up,
/// the directory, in this order, so that a failure leaves the record for another try.
pub(crate) fn clean_up(container: &Container) -> Result<()> {
    let cgroup = &container.record.cgroup;
    // Mostly init was the last one, and the groups just go.
    if !cgroup.remove_empty() {
        cgroup.kill().phase(Phase::Cgroup)?;
        cgroup.remove().phase(Phase::Cgroup)?;
    }
    if let Some(rdt) = &container.record.rdt {
        rdt.remove().phase(Phase::Cgroup)?;
    }
    // Without a first process nothing was there to hook into.
    if container.record.init.is_some()
        && let Some(mut hooks) = Hooks::of(&container.record)
    {
        if let Err(error) = hooks.open_outputs() {
            log::warn(line(&error));
        }
        // Before the directory goes, so that a killed `delete` can be tried again.
        hooks.run_all(Kind::Poststop).iter().for_each(log::warn);
    }
    container.remove().phase(Phase::State)?;
    log::debug(format_args!("{}: cgroups and state directory are removed", container.record.id));
    Ok(())
}
