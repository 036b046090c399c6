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

/// The container's agent, with an open connection for the first seccomp notify fd.
#[derive(Debug)]
pub struct AgentConnection<'a> {
    agent: &'a Agent,
    record: &'a ContainerRecord,
    status: ContainerStatus,
    /// The connection for the next seccomp notify fd, if it has been made.
    socket: Option<OwnedFd>,
}

impl<'a> AgentConnection<'a> {
    /// Connects to the container's agent, if it has one, before the process goes on. `status` is
    /// the container's.
    pub fn connect(record: &'a ContainerRecord, status: ContainerStatus) -> Result<Option<Self>> {
        let terms = record.seccomp.as_ref();
        let Some(agent) = terms.and_then(|terms| terms.agent.as_ref()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            agent,
            record,
            status,
            socket: Some(agent.connect()?),
        }))
    }

    /// Sends the seccomp notify fd of the process `pid`, over a connection of its own. The agent
    /// gets the same state of the container as hooks do.
    fn send(&mut self, notify_fd: &OwnedFd, pid: i32) -> Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.agent.connect()?,
        };
        let status = self.status.to_string();
        let init = self.record.init.map_or(0, |init| init.pid);
        let document = serde_json::to_vec(&ProcessState {
            oci_version: OCI_VERSION,
            fds: ["seccompFd"],
            pid,
            metadata: self.agent.metadata.as_deref(),
            state: HookState::new(self.record, &status, init),
        })?;
        let fds = [notify_fd.as_raw_fd()];
        let mut rights = vec![ControlMessage::ScmRights(&fds)];
        let mut rest = document.as_slice();
        while !rest.is_empty() {
            let flags = MsgFlags::MSG_NOSIGNAL;
            let vector = [IoSlice::new(rest)];
            match sendmsg::<()>(socket.as_raw_fd(), &vector, &rights, flags, None) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => bail!("{}: does not read", origin(&self.agent.path)),
                Err(errno) => return Err(errno).with_context(|| origin(&self.agent.path)),
            }
            rights.clear();
        }
        Ok(())
    }
}

/// Returns the function that sends the seccomp notify fds of the process `pid` to the agent: its
/// program's, and before that one of each startContainer hook.
pub fn notify_fd_sender(
    mut agent: Option<AgentConnection<'_>>,
    pid: i32,
) -> impl FnMut(OwnedFd) -> Result<()> {
    move |notify_fd| {
        let agent = agent.as_mut().context("a listener without an agent")?;
        agent.send(&notify_fd, pid)
    }
}
