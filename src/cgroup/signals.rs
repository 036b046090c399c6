//! Signals to all processes of groups, and SIGKILL until there is none.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::freezer::{Frozen, frozen_from_above};
use super::group::{Group, with_controller};
use super::groups::Cgroup;
use super::members::pids;
use super::{file, unburden};
use crate::{process, sys};

impl Cgroup {
    /// Sends `signal` to every process of the groups and sub-groups, also to those that are
    /// forked meanwhile. Refuses if the caller is one of them. As long as `create` has not
    /// succeeded, nobody in the groups is the container's, and nothing is done.
    pub(crate) fn signal_all(&self, signal: i32) -> Result<()> {
        signal_all(self.own_groups(), signal)
    }

    /// Kills every process of the groups and sub-groups and waits until there is none, at most
    /// until `deadline`; leaves nothing frozen. Refuses if the caller is one of them. Missing groups
    /// are success. As long as `create` has not succeeded, nothing is done.
    pub(crate) fn kill(&self, deadline: Instant) -> Result<()> {
        kill(self.own_groups(), deadline)
    }

    /// Kills whoever is in the groups now, thaws them with all sub-groups and lifts the limits that
    /// keep processes from dying; does not wait.
    pub(crate) fn strike(&self) -> Result<()> {
        strike_hard(self.own_groups())
    }
}

/// As [`pids`], for those who are about to be hit: never the caller.
fn victims(groups: &[Group]) -> Result<Vec<i32>> {
    let pids = pids(groups)?;
    if pids.binary_search(&Pid::this().as_raw()).is_ok() {
        bail!("the container's cgroup holds the calling process, nothing is killed");
    }
    Ok(pids)
}

/// By pidfd, since nix cannot name a real-time signal.
fn signal(pids: &[i32], signal: i32) -> Result<()> {
    for pid in pids {
        match sys::pidfd_open(*pid).and_then(|fd| sys::pidfd_send_signal(fd.as_fd(), signal)) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).with_context(|| format!("signal {signal} to {pid}")),
        }
    }
    Ok(())
}

/// Sends a signal to all processes, and to those that were forked meanwhile.
fn signal_all(groups: &[Group], number: i32) -> Result<()> {
    if number == libc::SIGKILL {
        let pids = victims(groups)?;
        return if pids.is_empty() {
            Ok(())
        } else {
            strike(groups)
        };
    }
    let mut done = BTreeSet::new();
    // A container that forks without end must not hold the caller for ever.
    for _ in 0..100 {
        let new: Vec<i32> = victims(groups)?
            .into_iter()
            .filter(|pid| !done.contains(pid))
            .collect();
        if new.is_empty() {
            break;
        }
        signal(&new, number)?;
        done.extend(new);
    }
    Ok(())
}

/// Kills all processes and waits until they are gone, at most until `deadline`.
fn kill(groups: &[Group], deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_millis(1);
    let mut is_first = true;
    loop {
        let pids = victims(groups)?;
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(survivors(groups, &pids));
        }
        if !is_first {
            unburden::unburden(groups);
        }
        is_first = false;
        strike(groups)?;
        sys::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// SIGKILL once for everything that is there now, of which nothing stays frozen. Limits that keep
/// processes from dying are lifted.
fn strike_hard(groups: &[Group]) -> Result<()> {
    unburden::unburden(groups);
    strike(groups)
}

/// SIGKILL once for everything that is there now.
fn strike(groups: &[Group]) -> Result<()> {
    // The kernel's own way has no race with fork; a group of threads refuses it.
    let at_once = groups
        .iter()
        .find(|group| group.is_v2())
        .is_some_and(|group| file::write(&group.directory.join("cgroup.kill"), "1").is_ok());
    let freezer = with_controller(groups, "freezer").map(|group| group.directory.as_path());
    let _thaws = freezer.map(if at_once {
        Frozen::not_yet
    } else {
        Frozen::new
    });
    // Read only now: the pids of those that have just been killed are free for somebody else, and
    // those of frozen ones stay theirs.
    signal(&victims(groups)?, libc::SIGKILL)
}

/// The line about those who are still there, with the first of them and what holds it.
fn survivors(groups: &[Group], pids: &[i32]) -> String {
    let first = pids.first().copied().unwrap_or_default();
    let above = frozen_from_above(groups);
    let why = above.unwrap_or_else(|| process::what_holds(first));
    format!(
        "{} process(es) of the container survive SIGKILL, the first is {first}: {why}",
        pids.len()
    )
}
