//! The end of the connection to a helper that a command has.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::super::ports::Held;

/// The name of the socket in the network's directory.
pub(super) const SOCKET: &str = "serve.sock";
/// How long the helper may take for an answer, in seconds.
const ANSWER_LIMIT: i64 = 10;
/// How many sockets one message takes; the kernel allows 253 (SCM_MAX_FD).
const SOCKETS_MAX: usize = 200;

/// A connection to a helper.
pub(super) struct Connection(OwnedFd);

impl Connection {
    /// Connects to the helper whose socket is in the directory, if one listens there.
    pub(super) fn open(directory: &Path) -> Result<Option<Self>> {
        let fd = seqpacket()?;
        match at(directory, |address| connect(fd.as_raw_fd(), address))? {
            Ok(()) => {}
            Err(Errno::ECONNREFUSED | Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(errno).context(SOCKET),
        }
        let limit = TimeVal::new(ANSWER_LIMIT, 0);
        setsockopt(&fd, sockopt::ReceiveTimeout, &limit)?;
        setsockopt(&fd, sockopt::SendTimeout, &limit)?;
        Ok(Some(Self(fd)))
    }

    /// Sends a message with sockets. Returns the answer, which is empty if the helper has ended.
    pub(super) fn ask(&self, text: &str, sockets: &[RawFd]) -> Result<String> {
        let part = [std::io::IoSlice::new(text.as_bytes())];
        let rights = [ControlMessage::ScmRights(sockets)];
        let control = if sockets.is_empty() {
            &[][..]
        } else {
            &rights[..]
        };
        let fd = self.0.as_raw_fd();
        match sendmsg::<()>(fd, &part, control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(String::new()),
            result => result.context("helper process")?,
        };
        let mut answer = [0; 256];
        match recv(fd, &mut answer, MsgFlags::empty()) {
            Ok(length) => Ok(String::from_utf8_lossy(&answer[..length]).into_owned()),
            Err(Errno::ECONNRESET) => Ok(String::new()),
            Err(Errno::EAGAIN) => bail!("helper process: no answer in {ANSWER_LIMIT} s"),
            Err(errno) => Err(errno).context("helper process"),
        }
    }

    /// Sends a message with sockets.
    ///
    /// # Errors
    /// The answer is not "ok", or the helper has ended.
    pub(super) fn tell(&self, text: &str, sockets: &[RawFd]) -> Result<()> {
        match self.ask(text, sockets)?.as_str() {
            "ok" => Ok(()),
            "" => bail!("helper process: has ended"),
            other => bail!("helper process: {other}"),
        }
    }

    /// Tells the helper about a container and its held ports, in as many messages as they need.
    pub(super) fn add(&self, id: &str, held: &[Held]) -> Result<()> {
        let mut first = true;
        for part in held.chunks(SOCKETS_MAX) {
            self.add_part(if first { "add" } else { "more" }, id, part)?;
            first = false;
        }
        if first {
            self.add_part("add", id, &[])
        } else {
            Ok(())
        }
    }

    fn add_part(&self, verb: &str, id: &str, held: &[Held]) -> Result<()> {
        let mut text = format!("{verb} {id}");
        for one in held {
            text += &format!("\n{} {}", one.protocol.name(), one.to);
            text.extend(one.to6.map(|to6| format!(" {to6}")));
        }
        let sockets: Vec<_> = held.iter().map(|one| one.socket.as_raw_fd()).collect();
        self.tell(&text, &sockets)
    }

    /// Ends a helper; its sockets are closed when this returns.
    pub(super) fn finish(&self) -> Result<()> {
        match self.ask("end", &[])?.as_str() {
            "" => Ok(()),
            other => bail!("helper process: {other}"),
        }
    }
}

/// Returns a Unix socket that keeps messages apart (SOCK_SEQPACKET).
pub(super) fn seqpacket() -> Result<OwnedFd> {
    socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context(SOCKET)
}

/// Calls `work` with the address of the socket in `directory`. The address goes through a
/// descriptor of the directory, since a path may be too long for an address.
pub(super) fn at<T>(directory: &Path, work: impl FnOnce(&UnixAddr) -> T) -> Result<T> {
    let open = fs::File::open(directory).with_context(|| directory.display().to_string())?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd());
    Ok(work(&UnixAddr::new(path.as_str()).context(SOCKET)?))
}
