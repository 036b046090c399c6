//! `delete`: removes everything that `create` has made. It needs only the record, and works in
//! every state of the container, also if its creation was never finished. If the record cannot be
//! read, it is replaced by what is known from elsewhere. What a record says is checked against the
//! host: see [`trust`].

mod trust;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::child::HookOutputs;
use crate::config::hooks::HookKind;
use crate::container::hooks::Hooks;
use crate::container::state::{self, Container, ContainerStatus, LockBusy};
use crate::error::{InPhase, Phase, line};
use crate::rdt::Rdt;
use crate::{log, process, sys};

pub use trust::{check_init, own_cgroups};

/// How long it may take until all processes of a container have ended and its cgroups are removed.
/// `delete --force` is to end within ten seconds, including the time to report what is left.
const LIMIT: Duration = Duration::from_secs(9);
/// How long another command may hold the lock before it is considered stuck.
const TURN: Duration = Duration::from_secs(2);
/// How long a killed process usually takes at most to end: the first wait for it, and the longest
/// pause between two attempts to kill all.
const USUAL: Duration = Duration::from_millis(100);

/// Runs `rt delete`. With `force` it also deletes a running container, and succeeds for one that
/// does not exist.
pub fn delete(root: &Path, id: &str, force: bool) -> Result<()> {
    let deadline = deadline();
    let locked = match Container::open_locked_by(root, id, Instant::now() + TURN) {
        Err(error) if error.is::<LockBusy>() => {
            if force && let Some(mut container) = Container::find_any(root, id)? {
                // A `create` or `start` that waits for this init releases the lock when it ends.
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
        // A `create` has claimed the id and has ended before there was a container.
        container.refuse_strange_files()?;
        container.remove()?;
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
            // If the record is lost, only its processes show that the container runs.
            _ if container.fault.is_some() && !own_cgroups(&container).pids()?.is_empty() => {
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

/// Ends the init that the record names. False if that process does not belong to the container.
fn end_own_init(container: &Container, deadline: Instant) -> Result<bool> {
    let Some(init) = container.init()? else {
        return Ok(true);
    };
    // Then the processes of the container are found in its cgroups.
    if check_init(container).is_err() {
        return Ok(false);
    }
    end_init_by(container, init.as_fd(), deadline)?;
    Ok(true)
}

/// Returns the time at which an attempt that begins now is given up.
pub fn deadline() -> Instant {
    Instant::now() + LIMIT
}

/// Kills init and waits for its end, at most for [`LIMIT`].
pub fn end_init(container: &Container, init: BorrowedFd<'_>) -> Result<()> {
    end_init_by(container, init, deadline())
}

fn end_init_by(container: &Container, init: BorrowedFd<'_>, deadline: Instant) -> Result<()> {
    match sys::pidfd_send_signal(init, libc::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => return Err(errno.into()),
    }
    let is_frozen = container.record.cgroup.is_frozen().unwrap_or(true);
    if !is_frozen && has_ended(init, USUAL)? {
        return Ok(());
    }
    // Init may be frozen, by a `pause` that came in between or by the container itself in a cgroup
    // below, or it may wait for frozen processes of its pid namespace. Or there are so many
    // processes that the CPU time of their limit is not enough for them to end.
    let cgroup = own_cgroups(container);
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

fn has_ended(init: BorrowedFd<'_>, limit: Duration) -> Result<bool> {
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
    match poll(&mut [PollFd::new(init, PollFlags::POLLIN)], limit) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes what is left after the end of init, in this order: other processes, cgroups, what
/// poststop hooks clean up, the state directory. Thus a failure leaves the record for another try.
pub fn clean_up(container: &Container) -> Result<()> {
    clean_up_by(container, deadline())
}

/// Removes the cgroups and the class of Intel RDT.
fn remove_cgroups(container: &Container, deadline: Instant) -> Result<()> {
    let record = &container.record;
    // In most cases init was the last process, and the empty cgroups can be removed at once.
    let is_whole = !container.is_damaged && record.init.is_some();
    if !is_whole || !trust::has_own_cgroups(container) || !record.cgroup.remove_empty() {
        kill_and_remove_cgroups(container, deadline)?;
    }
    record.rdt.as_ref().map_or(Ok(()), Rdt::remove)
}

/// Kills all processes in the container's cgroups and removes these.
fn kill_and_remove_cgroups(container: &Container, deadline: Instant) -> Result<()> {
    let cgroup = own_cgroups(container);
    cgroup.kill(deadline)?;
    // An init that is not in the record has been killed in its cgroups, or has not noticed yet that
    // its parent is gone; on version 1 it may have entered the cgroups after the kill.
    container.wait_for_orphan(deadline)?;
    cgroup.kill(deadline)?;
    if container.is_damaged
        && let Some(directory) = cgroup.used_by_others()?
    {
        bail!(
            "{}: whether the processes in {} are its own cannot be told without its record",
            container.record.id,
            directory.display()
        );
    }
    cgroup.remove(deadline)
}

fn clean_up_by(container: &Container, deadline: Instant) -> Result<()> {
    let record = &container.record;
    remove_cgroups(container, deadline).phase(Phase::Cgroup)?;
    // Without an init there was no container for which the hooks could have anything to do.
    if (record.init.is_some() || container.fault.is_some())
        && let Some(hooks) = Hooks::from_record(record)
    {
        let outputs = hooks.open_outputs().unwrap_or_else(|error| {
            log::warn(line(&error));
            HookOutputs::default()
        });
        // The hooks run before the directory is removed, so that a killed `delete` can be repeated.
        let failures = hooks.run_all(HookKind::Poststop, &outputs);
        failures.iter().for_each(log::warn);
    }
    container.remove()?;
    log::debug(format_args!(
        "{}: cgroups and state directory are removed",
        record.id
    ));
    Ok(())
}
