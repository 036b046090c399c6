//! Sends signals to all processes of cgroups, and SIGKILL until there is no process left.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::cgroup_dir::{CgroupDir, with_controller};
use super::cgroups::Cgroup;
use super::freezer::{Frozen, frozen_from_above};
use super::members::pids;
use super::{file, unburden};
use crate::{process, sys};

impl Cgroup {
    /// Sends `signal` to every process of the cgroups and of those below, also to those that are
    /// forked meanwhile. Refuses if this process is one of them. As long as `create` has not
    /// succeeded, no process in the cgroups is known to be the container's, and nothing is done.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        signal_all(self.own_cgroups(), signal)
    }

    /// Kills every process of the cgroups and of those below, and waits until there is none, at
    /// most until `deadline`. Leaves nothing frozen. Refuses if this process is one of them.
    /// Missing cgroups are no error. As long as `create` has not succeeded, nothing is done.
    pub fn kill(&self, deadline: Instant) -> Result<()> {
        kill(self.own_cgroups(), deadline)
    }

    /// Kills every process that is in the cgroups now, thaws them with all cgroups below, and lifts
    /// the limits that keep processes from dying. Does not wait.
    pub fn strike(&self) -> Result<()> {
        strike_hard(self.own_cgroups())
    }
}

/// Returns the processes to signal. Refuses if this process is one of them.
fn victims(cgroups: &[CgroupDir]) -> Result<Vec<i32>> {
    let pids = pids(cgroups)?;
    if pids.binary_search(&Pid::this().as_raw()).is_ok() {
        bail!("the container's cgroup holds the calling process, nothing is killed");
    }
    Ok(pids)
}

/// Sends a signal by pidfd, since nix has no names for real-time signals.
fn signal(pids: &[i32], signal: i32) -> Result<()> {
    for pid in pids {
        match sys::pidfd_open(*pid).and_then(|fd| sys::pidfd_send_signal(fd.as_fd(), signal)) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).with_context(|| format!("signal {signal} to {pid}")),
        }
    }
    Ok(())
}

/// Sends a signal to all processes, and to those that are forked meanwhile.
fn signal_all(cgroups: &[CgroupDir], number: i32) -> Result<()> {
    if number == libc::SIGKILL {
        let pids = victims(cgroups)?;
        return if pids.is_empty() {
            Ok(())
        } else {
            strike(cgroups)
        };
    }
    let mut done = BTreeSet::new();
    // The number of rounds is limited, so that a container that forks forever cannot hold this
    // process up forever.
    for _ in 0..100 {
        let new: Vec<i32> = victims(cgroups)?
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
fn kill(cgroups: &[CgroupDir], deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_millis(1);
    let mut is_first = true;
    loop {
        let pids = victims(cgroups)?;
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(survivors(cgroups, &pids));
        }
        if !is_first {
            unburden::unburden(cgroups);
        }
        is_first = false;
        strike(cgroups)?;
        sys::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Sends SIGKILL once to every process that is there now, and leaves none frozen. Lifts limits that
/// keep processes from dying.
fn strike_hard(cgroups: &[CgroupDir]) -> Result<()> {
    unburden::unburden(cgroups);
    strike(cgroups)
}

/// Sends SIGKILL once to every process that is there now.
fn strike(cgroups: &[CgroupDir]) -> Result<()> {
    // `cgroup.kill` has no race with fork; a threaded cgroup refuses it.
    let at_once = cgroups
        .iter()
        .find(|cgroup| cgroup.is_v2())
        .is_some_and(|cgroup| file::write(&cgroup.directory.join("cgroup.kill"), "1").is_ok());
    let freezer = with_controller(cgroups, "freezer").map(|cgroup| cgroup.directory.as_path());
    let _thaws = freezer.map(if at_once {
        Frozen::not_yet
    } else {
        Frozen::new
    });
    // The pids are read only now: those of processes that have just been killed may be reused for
    // other processes, while those of frozen processes cannot be.
    signal(&victims(cgroups)?, libc::SIGKILL)
}

/// Returns the error line about processes that are still there, with the first of them and what
/// holds it.
fn survivors(cgroups: &[CgroupDir], pids: &[i32]) -> String {
    let first = pids.first().copied().unwrap_or_default();
    let above = frozen_from_above(cgroups);
    let why = above.unwrap_or_else(|| process::what_holds(first));
    format!(
        "{} process(es) of the container survive SIGKILL, the first is {first}: {why}",
        pids.len()
    )
}
