//! `pause` and `resume`: every process of a container stands still, and goes on.

use std::path::Path;

use anyhow::{Result, bail};

use crate::error::{InPhase, Phase};
use crate::process;
use crate::state::{Container, Status};

/// `rt pause`. A container that waits for `start` can be paused as well.
pub(crate) fn pause(root: &Path, id: &str) -> Result<()> {
    let (container, _lock) = Container::open_existing_locked(root, id)?;
    match container.status()?.0 {
        Status::Created | Status::Running => {
            let cgroup = &container.record.cgroup;
            cgroup.freeze().phase(Phase::Cgroup)?;
            if container.record.init.is_some_and(|init| process::is_killed(init.pid)) {
                // A `kill` came first: who is frozen does not die.
                cgroup.thaw().phase(Phase::Cgroup)?;
                bail!("{id}: container not running");
            }
            Ok(())
        }
        Status::Paused => bail!("{id}: container not running: already paused"),
        Status::Creating | Status::Stopped => bail!("{id}: container not running"),
    }
}

/// `rt resume`.
pub(crate) fn resume(root: &Path, id: &str) -> Result<()> {
    let (container, _lock) = Container::open_existing_locked(root, id)?;
    match container.status()?.0 {
        Status::Paused => container.record.cgroup.thaw().phase(Phase::Cgroup),
        _ => bail!("{id}: container not paused"),
    }
}
