//! Notification when the kernel kills a process of a container because memory runs out.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::uio::pread;

use super::cgroup_dir::{CgroupDir, with_controller};
use super::cgroups::Cgroup;
use super::file;
use crate::sys;

/// A descriptor that becomes ready when a process of the container has been killed by the OOM
/// killer.
pub enum OomWatch {
    /// Version 1: an eventfd, registered in `cgroup.event_control`, and `memory.oom_control`.
    Event { event: EventFd, control: OwnedFd },
    /// Version 2: `memory.events`, and its last count of `oom_kill`.
    File { events: OwnedFd, seen: u64 },
}

impl Cgroup {
    /// Returns a watch for processes that the OOM killer kills; None where memory is not counted.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>> {
        OomWatch::new(&self.cgroups)
    }
}

impl OomWatch {
    /// Returns None where no hierarchy limits memory.
    fn new(cgroups: &[CgroupDir]) -> Result<Option<Self>> {
        if let Some(cgroup) = with_controller(cgroups, "memory") {
            return watch_v1(cgroup)
                .with_context(|| cgroup.directory.display().to_string())
                .map(Some);
        }
        let Some(cgroup) = cgroups.iter().find(|cgroup| cgroup.is_v2()) else {
            return Ok(None);
        };
        let path = cgroup.directory.join("memory.events");
        let context = || path.display().to_string();
        match file::open(&path, OFlag::O_RDONLY) {
            Err(Errno::ENOENT) => Ok(None),
            events => {
                let events = events.with_context(context)?;
                let seen = killed(&events).with_context(context)?;
                Ok(Some(Self::File { events, seen }))
            }
        }
    }

    /// Returns the descriptor and the events to wait for.
    pub fn poll(&self) -> (BorrowedFd<'_>, PollFlags) {
        match self {
            Self::Event { event, .. } => (event.as_fd(), PollFlags::POLLIN),
            Self::File { events, .. } => (events.as_fd(), PollFlags::POLLPRI),
        }
    }

    /// Whether a process has been killed since the last call; never waits.
    pub fn occurred(&mut self) -> bool {
        match self {
            // The removal of the cgroup is an event, too; reading `memory.oom_control` fails then.
            Self::Event { event, control } => {
                event.read().is_ok() && pread(control, &mut [0; 1], 0).is_ok()
            }
            Self::File { events, seen } => {
                // A cgroup that has been removed reports no new kills.
                let now = killed(events).unwrap_or(*seen);
                std::mem::replace(seen, now) < now
            }
        }
    }
}

/// Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control".
fn watch_v1(cgroup: &CgroupDir) -> Result<OomWatch> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let control = file::open(
        &cgroup.directory.join("memory.oom_control"),
        OFlag::O_RDONLY,
    )
    .context("memory.oom_control")?;
    let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
    file::write(&cgroup.directory.join("cgroup.event_control"), &line)
        .context("cgroup.event_control")?;
    Ok(OomWatch::Event { event, control })
}

fn killed(events: &OwnedFd) -> nix::Result<u64> {
    let events = sys::read_range(events, 0, usize::MAX)?;
    let text = String::from_utf8_lossy(&events);
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    Ok(line.and_then(|number| number.parse().ok()).unwrap_or(0))
}
