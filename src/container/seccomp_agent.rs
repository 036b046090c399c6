//! Sends seccomp notify fds to the agent of a profile, each with the container process state
//! (config-linux.md, "The Container Process State"). Every process that gets the filter has a
//! notify fd of its own, which the parent passes on.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::Serialize;

use super::hooks::HookState;
use super::state::{ContainerRecord, ContainerStatus};
use crate::config::OCI_VERSION;
use crate::security::seccomp::agent::{Agent, origin};

/// The container process state.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: HookState<'a>,
}

/// A connection to the agent, for one seccomp notify fd.
#[derive(Debug)]
pub(crate) struct AgentConnection {
    socket: OwnedFd,
    agent: Agent,
    record: ContainerRecord,
    status: ContainerStatus,
}

/// Connects to the container's agent, if it has one. `start` and `exec` do so before the process
/// goes on, `run` right after it has sent Start. `status` is the container's.
pub(crate) fn connect_of(
    record: &ContainerRecord,
    status: ContainerStatus,
) -> Result<Option<AgentConnection>> {
    let agent = record
        .seccomp
        .as_ref()
        .and_then(|terms| terms.agent.as_ref());
    let Some(agent) = agent else { return Ok(None) };
    Ok(Some(AgentConnection {
        socket: agent.connect()?,
        record: record.clone(),
        agent: agent.clone(),
        status,
    }))
}

/// Returns what takes the seccomp notify fds of the process `pid`: its program's, and before that
/// one of each startContainer hook. The agent gets each by a connection of its own.
pub(crate) fn taker(agent: Option<AgentConnection>, pid: i32) -> impl FnMut(OwnedFd) -> Result<()> {
    let mut known = agent
        .as_ref()
        .map(|connection| (connection.record.clone(), connection.status));
    let mut first = agent;
    move |listener| {
        let connection = match (first.take(), &mut known) {
            (None, Some((record, status))) => connect_of(record, *status)?,
            (first, _) => first,
        };
        connection
            .context("a listener without an agent")?
            .pass(listener, pid)
    }
}

impl AgentConnection {
    /// Sends the seccomp notify fd of the process `pid`. The agent gets the same state of the
    /// container as hooks do.
    fn pass(self, listener: OwnedFd, pid: i32) -> Result<()> {
        let Self {
            socket,
            agent,
            record,
            status,
        } = self;
        let status = status.to_string();
        let document = serde_json::to_vec(&ProcessState {
            oci_version: OCI_VERSION,
            fds: ["seccompFd"],
            pid,
            metadata: agent.metadata.as_deref(),
            state: HookState::of(&record, &status, record.init.map_or(0, |init| init.pid)),
        })?;
        let fds = [listener.as_raw_fd()];
        let mut rights = vec![ControlMessage::ScmRights(&fds)];
        let mut rest = document.as_slice();
        while !rest.is_empty() {
            let flags = MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(
                socket.as_raw_fd(),
                &[IoSlice::new(rest)],
                &rights,
                flags,
                None,
            ) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => bail!("{}: does not read", origin(&agent.path)),
                Err(errno) => return Err(errno).with_context(|| origin(&agent.path)),
            }
            rights.clear();
        }
        Ok(())
    }
}
