//! The agent: the program that answers for calls whose action is `SCMP_ACT_NOTIFY`.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use oci_spec::runtime::LinuxSeccomp;
use serde::{Deserialize, Serialize};

/// How long an agent may leave its socket alone, in seconds.
const LIMIT_S: i64 = 10;

/// Who is asked, as the container's record has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Agent {
    pub(crate) path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metadata: Option<String>,
}

impl Agent {
    /// The agent that a profile names.
    pub(super) fn of(seccomp: &LinuxSeccomp) -> Option<Self> {
        let path = seccomp.listener_path().clone()?;
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

    /// Connects to it.
    pub(crate) fn connect(&self) -> Result<OwnedFd> {
        self.open(SockType::Stream)
            .with_context(|| origin(&self.path))
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

pub(crate) fn origin(path: &Path) -> String {
    format!("linux.seccomp.listenerPath {}", path.display())
}
