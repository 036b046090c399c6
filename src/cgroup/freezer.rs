//! Freezing and thawing all processes of a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::cgroup_dir::{CgroupDir, with_controller};
use super::cgroups::Cgroup;
use super::{file, walk};
use crate::sys;

/// How long a cgroup may take to freeze or to thaw.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a version 1 cgroup may take to freeze before it is killed anyway: a process in an
/// uninterruptible wait never freezes.
const FREEZING: Duration = Duration::from_millis(100);

impl Cgroup {
    /// Whether the processes of the container are frozen; false if the cgroup is missing.
    pub fn is_frozen(&self) -> Result<bool> {
        self.freezer().map_or(Ok(false), CgroupDir::is_frozen)
    }

    /// Returns the directory of the cgroup that can be frozen, if there is one.
    pub fn freezer_directory(&self) -> Option<&Path> {
        self.freezer().map(|cgroup| &*cgroup.directory)
    }

    /// Freezes every process of the container and waits until all are frozen, at most 10 s.
    pub fn freeze(&self) -> Result<()> {
        freeze(
            self.freezer()
                .context("no cgroup hierarchy can freeze processes")?,
        )
    }

    /// Thaws every process of the container.
    pub fn thaw(&self) -> Result<()> {
        self.freezer().map_or(Ok(()), thaw)
    }

    /// Returns why the processes cannot be thawed, if a cgroup above is frozen.
    pub fn frozen_from_above(&self) -> Option<String> {
        frozen_from_above(&self.cgroups)
    }
}

impl CgroupDir {
    pub(super) fn is_frozen(&self) -> Result<bool> {
        let name = if self.is_v2() {
            "cgroup.events"
        } else {
            "freezer.state"
        };
        let path = self.directory.join(name);
        match file::read(&path) {
            Ok(text) => Ok(text
                .lines()
                .any(|l| matches!(l, "frozen 1" | "FROZEN" | "FREEZING"))),
            Err(errno) if walk::is_gone(errno) => Ok(false),
            Err(errno) => Err(errno).with_context(|| path.display().to_string()),
        }
    }

    /// Whether a cgroup above is frozen, which cannot be undone from here (version 1).
    pub(super) fn is_frozen_from_above(&self) -> bool {
        file::read(&self.directory.join("freezer.parent_freezing")).is_ok_and(|text| text == "1")
    }
}

/// Returns why processes of `cgroups` cannot be thawed, if a cgroup above is frozen.
pub(super) fn frozen_from_above(cgroups: &[CgroupDir]) -> Option<String> {
    let cgroup = with_controller(cgroups, "freezer")?;
    let directory = cgroup.directory.display();
    cgroup
        .is_frozen_from_above()
        .then(|| format!("a cgroup above {directory} is frozen"))
}

/// Freezes a cgroup with all below it and waits until every process is frozen, at most 10 s. After
/// an error all of them run.
fn freeze(cgroup: &CgroupDir) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let result = if cgroup.is_v2() {
        set_v2(&cgroup.directory, true, deadline)
    } else {
        freeze_v1(&cgroup.directory, deadline)
    };
    result.inspect_err(|_| {
        // The error of the freeze says more than a second one would.
        let _ = thaw(cgroup);
    })
}

/// Thaws a cgroup that [`freeze`] has frozen. Cgroups below that were frozen by themselves stay
/// frozen.
fn thaw(cgroup: &CgroupDir) -> Result<()> {
    if cgroup.is_v2() {
        return set_v2(&cgroup.directory, false, Instant::now() + PATIENCE);
    }
    let path = cgroup.directory.join("freezer.state");
    file::write(&path, "THAWED").with_context(|| path.display().to_string())?;
    match file::read(&path)
        .with_context(|| path.display().to_string())?
        .as_str()
    {
        "THAWED" => Ok(()),
        _ => bail!("{}: a cgroup above is frozen", path.display()),
    }
}

fn freeze_v1(directory: &Path, deadline: Instant) -> Result<()> {
    let path = directory.join("freezer.state");
    let mut pause = Duration::from_micros(100);
    loop {
        // Each write tries once more to freeze the processes that could not be frozen before.
        let state = file::write(&path, "FROZEN").and_then(|()| file::read(&path));
        if state.with_context(|| path.display().to_string())? == "FROZEN" {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("{}: some processes do not freeze", path.display());
        }
        sys::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Writes `cgroup.freeze` and waits until `cgroup.events` reports the change, which the kernel
/// signals with POLLPRI.
fn set_v2(directory: &Path, frozen: bool, deadline: Instant) -> Result<()> {
    let path = directory.join("cgroup.freeze");
    let events = directory.join("cgroup.events");
    let events_fd =
        file::open(&events, OFlag::O_RDONLY).with_context(|| events.display().to_string())?;
    let value = if frozen { "1" } else { "0" };
    file::write(&path, value).with_context(|| path.display().to_string())?;
    while is_frozen_v2(&events_fd).with_context(|| events.display().to_string())? != frozen {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            match frozen {
                true => bail!("{}: some processes do not freeze", path.display()),
                false => bail!("{}: a cgroup above is frozen", path.display()),
            }
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        match poll(
            &mut [PollFd::new(events_fd.as_fd(), PollFlags::POLLPRI)],
            timeout,
        ) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
    }
    Ok(())
}

fn is_frozen_v2(events: &OwnedFd) -> nix::Result<bool> {
    let events = sys::read_range(events, 0, usize::MAX)?;
    Ok(events
        .split(|byte| *byte == b'\n')
        .any(|line| line == b"frozen 1"))
}

/// A version 1 cgroup that is frozen while its processes are killed. Dropping it thaws it and all
/// cgroups below, since a frozen process does not act on SIGKILL.
pub(super) struct Frozen<'a>(&'a Path);

impl<'a> Frozen<'a> {
    /// Freezes the cgroup if that is possible within a moment.
    pub(super) fn new(directory: &'a Path) -> Self {
        let frozen = Self(directory);
        // Killing works without freezing too; it only has to be repeated then.
        let _ = freeze_v1(directory, Instant::now() + FREEZING);
        frozen
    }

    /// Does not freeze; the cgroup is thawed on drop.
    pub(super) fn not_yet(directory: &'a Path) -> Self {
        Self(directory)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // Each cgroup has its own `freezer.state`, and the container may have frozen those below.
        let _ = walk::visit(self.0, |cgroup: BorrowedFd<'_>| {
            // An error in one cgroup must not keep the others frozen.
            let _ = file::open_at(cgroup, "freezer.state", OFlag::O_WRONLY)
                .and_then(|state| file::write_to(state, "THAWED"));
            Ok(())
        });
    }
}
