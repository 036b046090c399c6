//! `start`: tells the waiting init to run the program, and learns whether it does.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Result, bail};

use crate::config::hooks::HookKind;
use crate::container::hooks::Hooks;
use crate::container::protocol;
use crate::container::seccomp_agent::{AgentConnection, notify_fd_sender};
use crate::container::service::NotifyRelay;
use crate::container::state::{Container, ContainerStatus};
use crate::error::{InPhase, Phase, line, phase};
use crate::{delete, log};

/// `rt start`.
pub fn start(root: &Path, id: &str) -> Result<()> {
    let (container, lock) = Container::open_existing_locked(root, id)?;
    let (status, init) = container.status().phase(Phase::State)?;
    let Some(init) = init else {
        bail!("{id}: cannot start a container that has stopped");
    };
    match status {
        ContainerStatus::Created => {}
        ContainerStatus::Creating => bail!("{id}: cannot start a container that is being created"),
        ContainerStatus::Paused => bail!("{id}: cannot start a container in the paused state"),
        _ => bail!("{id}: cannot start an already running container"),
    }
    let notify = let_go_on(&container, init.as_fd()).phase(Phase::Process)?;
    drop(lock);
    if let (Some(notify), Some(process)) = (notify, container.record.init) {
        notify.wait(init.as_fd(), process.pid)?;
    }
    Ok(())
}

/// Starts a created container, whose lock is held and whose `init` is alive. Returns the relay on
/// which the container will say that it is ready, if a service manager wants to hear of it.
fn let_go_on(container: &Container, init: BorrowedFd<'_>) -> Result<Option<NotifyRelay>> {
    let id = &container.record.id;
    let Some(connection) = container.connect().phase(Phase::State)? else {
        bail!("{id}: cannot start a container that has stopped");
    };
    let notify = NotifyRelay::listen(container)?;
    let record = &container.record;
    let agent = AgentConnection::connect(record, ContainerStatus::Created)?;
    let pid = record.init.map_or(0, |init| init.pid);
    let sender = notify_fd_sender(agent, pid);
    protocol::start(connection.as_fd(), init, sender)
        .inspect_err(|error| end_of_hooks(container, init, error))?;
    log::debug(format_args!("{id}: the program runs"));
    poststart(container, init)?;
    Ok(notify)
}

/// Ends what startContainer hooks have left behind, after one of them has failed or taken too long.
/// In a pid namespace of its own all that has ended with init.
fn end_of_hooks(container: &Container, init: BorrowedFd<'_>, error: &anyhow::Error) {
    let has_hooks =
        Hooks::from_record(&container.record).is_some_and(|h| h.has(&[HookKind::StartContainer]));
    // Only a failed hook is handled here, which init has reported before it ended. After other
    // errors init may still run.
    if !has_hooks || phase(error) != Some(Phase::Hooks) {
        return;
    }
    let ended = delete::end_init(container, init);
    if let Err(error) = ended.and_then(|()| container.record.cgroup.kill(delete::deadline())) {
        log::warn(line(&error));
    }
}

/// Runs the poststart hooks. If one fails, the container is ended.
pub fn poststart(container: &Container, init: BorrowedFd<'_>) -> Result<()> {
    let (Some(hooks), Some(process)) =
        (Hooks::from_record(&container.record), container.record.init)
    else {
        return Ok(());
    };
    let opened = hooks.open_outputs().phase(Phase::Hooks);
    let run = opened.and_then(|outputs| hooks.run(HookKind::Poststart, process.pid, &outputs));
    let Err(error) = run else { return Ok(()) };
    delete::end_init(container, init)?;
    Err(error)
}
