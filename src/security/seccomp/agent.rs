//! The agent: the program that answers system calls whose action is `SCMP_ACT_NOTIFY`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

/// How long connecting and sending wait for an agent that does not serve its socket, in seconds.
const LIMIT_S: i64 = 10;

/// The agent of a container, as the record stores it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Agent {
    pub path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
}

impl Agent {
    /// Returns the agent that a profile names.
    pub(super) fn from_spec(seccomp: &LinuxSeccomp) -> Option<Self> {
        let path = seccomp.listener_path().clone()?;
        Some(Self {
            path,
            metadata: seccomp.listener_metadata().clone(),
        })
    }

    /// Checks that a process listens on the socket, without connecting: unix(7) answers a socket of
    /// the wrong type with `EPROTOTYPE`, and one without a listener with `ECONNREFUSED`.
    pub fn probe(&self) -> Result<()> {
        match self.open(SockType::Datagram) {
            Ok(_) | Err(Errno::EPROTOTYPE) => Ok(()),
            Err(errno) => Err(errno).with_context(|| origin(&self.path)),
        }
    }

    /// Connects to the agent.
    pub fn connect(&self) -> Result<OwnedFd> {
        self.open(SockType::Stream)
            .with_context(|| origin(&self.path))
    }

    fn open(&self, kind: SockType) -> nix::Result<OwnedFd> {
        let address = UnixAddr::new(&self.path)?;
        let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
        // The time limit holds for connect(2), too, which would otherwise wait forever if the queue
        // is full.
        setsockopt(&socket, SendTimeout, &TimeVal::seconds(LIMIT_S))?;
        connect(socket.as_raw_fd(), &address)?;
        Ok(socket)
    }
}

pub fn origin(path: &Path) -> String {
    format!("linux.seccomp.listenerPath {}", path.display())
}
