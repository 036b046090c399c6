//! `events`: prints the resource usage of a container repeatedly, and an event when it runs out of
//! memory. Each event is one line of JSON in the format of runc.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use crate::cgroup::{CgroupStats, OomWatch};
use crate::container::state::{Container, ContainerStatus};
use crate::error::{InPhase, Phase};

/// One line of output, with the fields in the order of runc.
#[derive(Debug, Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<CgroupStats>,
}

/// Runs `rt events`: prints the usage once with `stats_only`, otherwise until the container ends.
pub fn events(root: &Path, id: &str, interval: Duration, stats_only: bool) -> Result<()> {
    if interval.is_zero() {
        bail!("--interval: must be longer than 0");
    }
    let container = Container::open_existing(root, id)?;
    let (status, init) = container.status()?;
    let Some(init) = init.filter(|_| status != ContainerStatus::Creating) else {
        bail!("container with id {id} is not running");
    };
    if stats_only {
        print_stats(&container)
    } else {
        follow(&container, &init, interval)
    }
}

fn follow(container: &Container, init: &OwnedFd, interval: Duration) -> Result<()> {
    let mut oom = container.record.cgroup.watch_oom().phase(Phase::Cgroup)?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let ended = wait(init, oom.as_ref(), left)?;
        if oom.as_mut().is_some_and(OomWatch::occurred) {
            print(&Event {
                kind: "oom",
                id: &container.record.id,
                data: None,
            })?;
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            print_stats(container)?;
            next = Instant::now() + interval;
        }
    }
}

/// Waits until init has ended, the container has run out of memory, or `timeout` is over. Returns
/// whether init has ended.
fn wait(init: &OwnedFd, oom: Option<&OomWatch>, timeout: Duration) -> Result<bool> {
    let mut fds = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
    fds.extend(
        oom.map(OomWatch::poll)
            .map(|(fd, flags)| PollFd::new(fd, flags)),
    );
    // Rounded up: otherwise poll(2) would be called with 0 repeatedly for the last millisecond.
    let timeout = (timeout + Duration::from_micros(999)).as_millis();
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) => Ok(fds[0].any().unwrap_or(false)),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno).context("poll"),
    }
}

fn print_stats(container: &Container) -> Result<()> {
    let mut stats = container.record.cgroup.stats();
    if let Some(rdt) = &container.record.rdt {
        stats.intel_rdt = rdt.stats();
    }
    print(&Event {
        kind: "stats",
        id: &container.record.id,
        data: Some(stats),
    })
}

fn print(event: &Event<'_>) -> Result<()> {
    let line = serde_json::to_string(event)? + "\n";
    std::io::stdout()
        .write_all(line.as_bytes())
        .context("standard output")
}
