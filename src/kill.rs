//! `kill`: sends a signal to init, or to every process of the container.

use std::os::fd::AsFd;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

use crate::container::state::{self, Container, ContainerStatus};
use crate::delete::{check_init, own_cgroups};
use crate::{log, sys};

/// How long `kill` waits for another command that holds the lock of a created container.
const TURN: Duration = Duration::from_secs(1);

/// Runs `rt kill`: sends `signal` to init, or with `all` to every process of the container.
pub fn kill(root: &Path, id: &str, signal: &str, all: bool) -> Result<()> {
    let signal = parse(signal)?;
    let container = Container::find_any(root, id)?.ok_or_else(|| state::missing(id))?;
    if container.fault.is_some() {
        return by_groups(container, signal, all);
    }
    let (status, init) = container.status()?;
    if status == ContainerStatus::Created {
        // A `create` that has not finished would report the end of init as its own failure.
        container.wait_for_turn(TURN);
    }
    let cgroup = &container.record.cgroup;
    // In a container without its own pid namespace the other processes outlive init. A frozen
    // process does not act on SIGKILL; `signal_all` thaws the cgroup.
    let kinds = CloneFlags::from_bits_retain(container.record.namespaces);
    let alone = !kinds.contains(CloneFlags::CLONE_NEWPID);
    let Some(init) = init.filter(|_| status != ContainerStatus::Creating) else {
        let outlived = signal == libc::SIGKILL && alone && !cgroup.pids()?.is_empty();
        if all || outlived {
            return own_cgroups(&container).signal_all(signal);
        }
        bail!("{id}: container not running");
    };
    if cgroup.is_nowhere() && (all || alone) {
        // With its own pid namespace the container ends as a whole when init is killed.
        if alone || signal != libc::SIGKILL {
            log::warn(format!("{id}: without a cgroup only init can be found"));
        }
    } else if all || (signal == libc::SIGKILL && (alone || status == ContainerStatus::Paused)) {
        return own_cgroups(&container).signal_all(signal);
    }
    check_init(&container)?;
    match sys::pidfd_send_signal(init.as_fd(), signal) {
        Err(Errno::ESRCH) => bail!("{id}: container not running: process already finished"),
        result => result.with_context(|| id.to_string()),
    }
}

/// If the record cannot be read: signals all processes in the container's cgroups, provided that
/// all were meant (`all` or SIGKILL) and that the cgroups are not used by other processes.
///
/// # Errors
/// Otherwise that the record cannot be read.
fn by_groups(container: Container, signal: i32, all: bool) -> Result<()> {
    let cgroup = own_cgroups(&container);
    let is_for_all = all || signal == libc::SIGKILL;
    if is_for_all && cgroup.used_by_others()?.is_none() && !cgroup.pids()?.is_empty() {
        return cgroup.signal_all(signal);
    }
    container.readable().map(drop)
}

/// Returns the number of a signal: `text` is a name with or without SIG, or a number. The number 0
/// sends no signal and only checks that there is a process.
fn parse(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        if (0..=libc::SIGRTMAX()).contains(&number) {
            return Ok(number);
        }
        bail!("unknown signal {text:?}");
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(number) = real_time(name) {
        return Ok(number);
    }
    match Signal::from_str(&format!("SIG{name}")) {
        Ok(signal) => Ok(signal as i32),
        Err(_) => bail!("unknown signal {text:?}"),
    }
}

/// Returns the number of a real-time signal: `RTMIN`, `RTMIN+3` or `RTMAX-3` (signal(7)).
fn real_time(name: &str) -> Option<i32> {
    let (base, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(offset), _) => (libc::SIGRTMIN(), offset),
        (_, Some(offset)) => (libc::SIGRTMAX(), offset),
        _ => return None,
    };
    let offset = if offset.is_empty() {
        0
    } else {
        offset.parse::<i32>().ok()?
    };
    let number = base.checked_add(offset)?;
    (libc::SIGRTMIN()..=libc::SIGRTMAX())
        .contains(&number)
        .then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_a_name_or_a_number() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("0", 0),
            ("RTMIN+1", 35),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "SIG", "TERMX", "-1", "65", "4294967305", "RTMIN+99"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
