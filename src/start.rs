//! `start`: tells the waiting init to run the program, and learns whether it does.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Result, bail};

use crate::error::{InPhase, Phase};
use crate::state::{Container, Status};
use crate::sync;

/// `rt start`.
pub(crate) fn command(root: &Path, id: &str) -> Result<()> {
    let container = Container::open(root, id)?;
    let _lock = container.lock()?;
    start(&container)
}

/// Starts a container whose lock is held.
pub(crate) fn start(container: &Container) -> Result<()> {
    let id = &container.record.id;
    let (status, init) = container.status().phase(Phase::State)?;
    let Some(init) = init else {
        bail!("{id}: cannot start a container that has stopped");
    };
    match status {
        Status::Created => {}
        Status::Creating => bail!("{id}: cannot start a container that is being created"),
        _ => bail!("{id}: cannot start an already running container"),
    }
    let Some(connection) = container.connect().phase(Phase::State)? else {
        bail!("{id}: cannot start a container that has stopped");
    };
    sync::start(connection.as_fd(), init.as_fd())
}
