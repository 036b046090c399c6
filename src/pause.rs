//! `pause` and `resume`: freeze and thaw all processes of a container.

use std::path::Path;

use anyhow::{Result, bail};

use crate::container::state::{Container, ContainerStatus};
use crate::error::{InPhase, Phase};
use crate::process;

/// Runs `rt pause`, also for a container that waits for `start`.
pub fn pause(root: &Path, id: &str) -> Result<()> {
    let (container, _lock) = Container::open_existing_locked(root, id)?;
    match container.status()?.0 {
        ContainerStatus::Created | ContainerStatus::Running => {
            let cgroup = &container.record.cgroup;
            cgroup.freeze().phase(Phase::Cgroup)?;
            // Init may have ended or been killed meanwhile: then the cgroup is thawed again,
            // because a frozen process does not act on SIGKILL.
            let alive = check_alive(&container);
            alive.or_else(|error| cgroup.thaw().phase(Phase::Cgroup).and(Err(error)))
        }
        ContainerStatus::Paused => bail!("{id}: container not running: already paused"),
        ContainerStatus::Creating | ContainerStatus::Stopped => {
            bail!("{id}: container not running")
        }
    }
}

fn check_alive(container: &Container) -> Result<()> {
    let init = container.init()?;
    if init.is_none()
        || container
            .record
            .init
            .is_some_and(|init| process::is_killed(init.pid))
    {
        bail!("{}: container not running", container.record.id);
    }
    Ok(())
}

/// Runs `rt resume`.
pub fn resume(root: &Path, id: &str) -> Result<()> {
    let (container, _lock) = Container::open_existing_locked(root, id)?;
    match container.status()?.0 {
        ContainerStatus::Paused => container.record.cgroup.thaw().phase(Phase::Cgroup),
        _ => bail!("{id}: container not paused"),
    }
}
