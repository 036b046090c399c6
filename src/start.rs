//! `start`: tells the waiting init to run the program, and learns whether it does.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Result, bail};

use crate::error::{InPhase, Phase};
use crate::state::{Container, Status};
use crate::sync;

/// `rt start`.
pub(crate) fn command(root: &Path, id: &str) -> Result<()> {
    let Some((container, _lock)) = Container::open_locked(root, id)? else {
        bail!("{id}: container does not exist");
    };
    let (status, init) = container.status().phase(Phase::State)?;
    let Some(init) = init else {
        bail!("{id}: cannot start a container that has stopped");
    };
    match status {
        Status::Created => {}
        Status::Creating => bail!("{id}: cannot start a container that is being created"),
        _ => bail!("{id}: cannot start an already running container"),
    }
    start(&container, init.as_fd())
}

/// Starts a created container, whose lock is held and whose `init` lives.
pub(crate) fn start(container: &Container, init: BorrowedFd<'_>) -> Result<()> {
    let id = &container.record.id;
    let Some(connection) = container.connect().phase(Phase::State)? else {
        bail!("{id}: cannot start a container that has stopped");
    };
    sync::start(connection.as_fd(), init)
}
