//! The agent: the program that answers for calls whose action is `SCMP_ACT_NOTIFY`. Every process
//! that gets the filter has a listener of its own, which the caller hands over (config-linux.md,
//! "The Container Process State").

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

use crate::hooks::State;
use crate::state::{Record, Status};

/// How long an agent may leave its socket alone, in seconds.
const LIMIT_S: i64 = 10;

/// Who is asked, as the container's record has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Agent {
    path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
}

/// The container process state.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: State<'a>,
}

impl Agent {
    /// The agent of a profile that has one and needs it.
    pub(super) fn of(seccomp: &LinuxSeccomp) -> Option<Self> {
        let path = seccomp
            .listener_path()
            .clone()
            .filter(|_| super::notifies(seccomp))?;
        Some(Self {
            path,
            metadata: seccomp.listener_metadata().clone(),
        })
    }

    /// Whether somebody listens, without a connection: unix(7) answers a socket of the wrong type
    /// with `EPROTOTYPE`, and a dead listener with `ECONNREFUSED`.
    pub(crate) fn probe(&self) -> Result<()> {
        match self.open(SockType::Datagram) {
            Ok(_) | Err(Errno::EPROTOTYPE) => Ok(()),
            Err(errno) => Err(errno).with_context(|| origin(&self.path)),
        }
    }

    /// Connects to the container's agent, if it has one, before the process is there or goes on.
    /// `status` is the container's.
    pub(crate) fn connect_of(record: &Record, status: Status) -> Result<Option<Connection>> {
        let agent = record
            .seccomp
            .as_ref()
            .and_then(|terms| terms.agent.as_ref());
        let Some(agent) = agent else { return Ok(None) };
        let socket = agent
            .open(SockType::Stream)
            .with_context(|| origin(&agent.path))?;
        Ok(Some(Connection {
            socket,
            record: record.clone(),
            agent: agent.clone(),
            status,
        }))
    }

    fn open(&self, kind: SockType) -> nix::Result<OwnedFd> {
        let address = UnixAddr::new(&self.path)?;
        let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
        // It holds for connect as well: a queue that is full is not waited for without end.
        setsockopt(&socket, SendTimeout, &TimeVal::seconds(LIMIT_S))?;
        connect(socket.as_raw_fd(), &address)?;
        Ok(socket)
    }
}

fn origin(path: &Path) -> String {
    format!("linux.seccomp.listenerPath {}", path.display())
}

/// A connection to the agent, for one listener.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    agent: Agent,
    record: Record,
    status: Status,
}

/// What takes the listeners of the process `pid`: its program's, and before that one of each
/// startContainer hook. The agent gets each by a connection of its own.
pub(crate) fn taker(agent: Option<Connection>, pid: i32) -> impl FnMut(OwnedFd) -> Result<()> {
    let mut known = agent
        .as_ref()
        .map(|connection| (connection.record.clone(), connection.status));
    let mut first = agent;
    move |listener| {
        let connection = match (first.take(), &mut known) {
            (None, Some((record, status))) => Agent::connect_of(record, *status)?,
            (first, _) => first,
        };
        connection
            .context("a listener without an agent")?
            .pass(listener, pid)
    }
}

impl Connection {
    /// Hands over the listener of the process `pid`. The agent hears of the container what its
    /// hooks do.
    fn pass(self, listener: OwnedFd, pid: i32) -> Result<()> {
        let Self {
            socket,
            agent,
            record,
            status,
        } = self;
        let status = status.to_string();
        let document = serde_json::to_vec(&ProcessState {
            oci_version: crate::OCI_VERSION,
            fds: ["seccompFd"],
            pid,
            metadata: agent.metadata.as_deref(),
            state: State::of(&record, &status, record.init.map_or(0, |init| init.pid)),
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
