//! `delete`: takes away what `create` made, from the record alone, whatever became of the
//! container and however far its creation had come. A record that cannot be read is made up from
//! what else is known, and none is believed where the host says otherwise: see [`trust`].

mod trust;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::config::hooks::HookKind;
use crate::container::hooks::Hooks;
use crate::container::state::{self, Container, ContainerStatus, LockBusy};
use crate::error::{InPhase, Phase, line};
use crate::{log, process, sys};

pub(crate) use trust::{check_init, own_groups};

/// How long all processes of a container may take to end, and its cgroups to go. `delete --force`
/// is to end within ten seconds, with time to say what is left.
const LIMIT: Duration = Duration::from_secs(9);
/// How long another command may take before it is held for one that is stuck.
const TURN: Duration = Duration::from_secs(2);
/// How long a killed process may take before it is asked what keeps it.
const USUAL: Duration = Duration::from_millis(100);

/// `rt delete`. With `force` also a running one, and one that does not exist.
pub(crate) fn command(root: &Path, id: &str, force: bool) -> Result<()> {
    let deadline = deadline();
    let locked = match Container::open_locked_by(root, id, Instant::now() + TURN) {
        Err(error) if error.is::<LockBusy>() => {
            if force && let Some(mut container) = Container::find_any(root, id)? {
                // A create or start that is stuck on this init gives the lock back then.
                trust::leave_out_misplaced(&mut container);
                end_own_init(&container, deadline)?;
            }
            Container::open_locked_by(root, id, deadline)
        }
        locked => locked,
    };
    let (mut container, _lock) = match locked? {
        Some(locked) => locked,
        None if force => return Ok(()),
        None => return Err(state::missing(id)),
    };
    if container.is_bare {
        // Of a claim that did not come far, and no container yet.
        container.refuse_strange_files()?;
        container.remove().phase(Phase::State)?;
        return if force {
            Ok(())
        } else {
            Err(state::missing(id))
        };
    }
    if let Some(fault) = &container.fault {
        container.refuse_strange_files()?;
        log::warn(format!("{id}: its record cannot be read: {fault:#}"));
    }
    let misplaced = trust::leave_out_misplaced(&mut container);
    container.is_damaged |= !misplaced.is_empty();
    if !force {
        let status = match container.status()?.0 {
            // Of one whose record is lost only the processes tell.
            _ if container.fault.is_some() && !own_groups(&container).pids()?.is_empty() => {
                ContainerStatus::Running
            }
            status => status,
        };
        if !matches!(
            status,
            ContainerStatus::Stopped | ContainerStatus::Created | ContainerStatus::Creating
        ) {
            bail!("cannot delete container {id} that is not stopped: {status}");
        }
    }
    if !end_own_init(&container, deadline)? || !misplaced.is_empty() {
        trust::warn(&container, &misplaced);
    }
    clean_up_by(&container, deadline)
}

/// Ends the init that the record names. False if that is somebody else's.
fn end_own_init(container: &Container, deadline: Instant) -> Result<bool> {
    let Some(init) = container.init()? else {
        return Ok(true);
    };
    // The container's own processes are found in its cgroups then.
    if check_init(container).is_err() {
        return Ok(false);
    }
    end_by(container, &init, deadline)?;
    Ok(true)
}

/// When what is begun now is given up.
pub(crate) fn deadline() -> Instant {
    Instant::now() + LIMIT
}

/// Kills init and waits for its end.
pub(crate) fn end(container: &Container, init: &OwnedFd) -> Result<()> {
    end_by(container, init, deadline())
}

fn end_by(container: &Container, init: &OwnedFd, deadline: Instant) -> Result<()> {
    match sys::pidfd_send_signal(init.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => return Err(errno.into()),
    }
    let is_frozen = container.record.cgroup.is_frozen().unwrap_or(true);
    if !is_frozen && has_ended(init, USUAL)? {
        return Ok(());
    }
    // It may be frozen, by a `pause` that came in between or by the container itself in a group
    // below, or wait for processes of its pid namespace that are frozen. Or there is a crowd of
    // them, for which the CPU time that they are allowed is not enough to die.
    let cgroup = own_groups(container);
    let mut pause = Duration::from_millis(5);
    loop {
        cgroup.strike().phase(Phase::Cgroup)?;
        if has_ended(init, pause)? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let pid = container.record.init.map_or(0, |init| init.pid);
            let why = cgroup
                .frozen_from_above()
                .unwrap_or_else(|| process::what_holds(pid));
            bail!(
                "{}: init, process {pid}, does not end: {why}",
                container.record.id
            );
        }
        pause = (pause * 2).min(USUAL);
    }
}

fn has_ended(init: &OwnedFd, limit: Duration) -> Result<bool> {
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
    match poll(&mut [PollFd::new(init.as_fd(), PollFlags::POLLIN)], limit) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes what is left once init is gone: other processes, cgroups, what poststop hooks clean up,
/// the directory, in this order, so that a failure leaves the record for another try.
pub(crate) fn clean_up(container: &Container) -> Result<()> {
    clean_up_by(container, deadline())
}

/// Kills everybody in the container's cgroups and removes them.
fn remove_groups(container: &Container, deadline: Instant) -> Result<()> {
    let cgroup = own_groups(container);
    cgroup.kill(deadline).phase(Phase::Cgroup)?;
    // An init of which the record does not know has been killed in its groups, or has yet to notice
    // that its caller is gone; on version 1 it may still have entered them.
    container.wait_for_orphan(deadline)?;
    cgroup.kill(deadline).phase(Phase::Cgroup)?;
    if container.is_damaged
        && let Some(directory) = cgroup.used_by_others()?
    {
        bail!(
            "{}: whether the processes in {} are its own cannot be told without its record",
            container.record.id,
            directory.display()
        );
    }
    cgroup.remove(deadline).phase(Phase::Cgroup)
}

fn clean_up_by(container: &Container, deadline: Instant) -> Result<()> {
    let record = &container.record;
    // Mostly init was the last one, and the groups just go.
    let is_whole = !container.is_damaged && record.init.is_some();
    if !is_whole || !trust::has_own_groups(container) || !record.cgroup.remove_empty() {
        remove_groups(container, deadline)?;
    }
    if let Some(rdt) = &record.rdt {
        rdt.remove().phase(Phase::Cgroup)?;
    }
    // Without a first process nothing was there to hook into.
    if (record.init.is_some() || container.fault.is_some())
        && let Some(mut hooks) = Hooks::of(record)
    {
        if let Err(error) = hooks.open_outputs() {
            log::warn(line(&error));
        }
        // Before the directory goes, so that a killed `delete` can be tried again.
        hooks.run_all(HookKind::Poststop).iter().for_each(log::warn);
    }
    container.remove().phase(Phase::State)?;
    log::debug(format_args!(
        "{}: cgroups and state directory are removed",
        record.id
    ));
    Ok(())
}
