//! The answer of a helper process: a fork of this process that makes a descriptor in namespaces which
//! this process cannot or must not enter.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use nix::sys::wait::{Id, WaitPidFlag, waitid};

use crate::error::line;
use crate::sys;

/// The most bytes of an error that a helper process reports.
const ERROR_MAX: usize = 8 * 1024;

/// The connection over which one helper process answers; to be made before it is forked.
#[derive(Debug)]
pub struct HelperAnswer {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl HelperAnswer {
    pub fn new() -> Result<Self> {
        let (family, flags) = (AddressFamily::Unix, SockFlag::SOCK_CLOEXEC);
        let pair = socketpair(family, SockType::SeqPacket, None, flags);
        let (reader, writer) = pair.context("a socket")?;
        Ok(Self { reader, writer })
    }

    /// In the helper process: sends a number and a descriptor, or an error, and ends the process.
    pub fn send(&self, result: Result<(i32, OwnedFd)>) -> ! {
        let socket = self.writer.as_raw_fd();
        // If this fails, the parent sees a helper process that has ended without an answer.
        let _ = match result {
            Ok((number, descriptor)) => {
                let fds = [descriptor.as_raw_fd()];
                let rights = [ControlMessage::ScmRights(&fds)];
                let number = number.to_ne_bytes();
                sendmsg::<()>(
                    socket,
                    &[IoSlice::new(&number)],
                    &rights,
                    MsgFlags::empty(),
                    None,
                )
            }
            Err(error) => {
                let text = line(&error);
                let text = &text.as_bytes()[..text.len().min(ERROR_MAX)];
                sendmsg::<()>(socket, &[IoSlice::new(text)], &[], MsgFlags::empty(), None)
            }
        };
        sys::exit_now(0)
    }

    /// In the parent: waits for the end of the helper process and returns what it has sent.
    ///
    /// # Errors
    /// The error that the process has sent, or that it was killed before it sent anything.
    pub fn receive(self, process: &OwnedFd) -> Result<(i32, OwnedFd)> {
        waitid(Id::PIDFd(process.as_fd()), WaitPidFlag::WEXITED).context("a helper process")?;
        // The other end may be open in a process that the helper process has cloned.
        drop(self.writer);
        let mut buffer = [0; ERROR_MAX];
        let (length, descriptor) =
            sys::receive_at_once(self.reader.as_fd(), &mut buffer).context("a helper process")?;
        match (&buffer[..length], descriptor) {
            ([a, b, c, d], Some(fd)) => Ok((i32::from_ne_bytes([*a, *b, *c, *d]), fd)),
            ([], _) => bail!("a helper process was killed (if not by you: out of memory?)"),
            (text, _) => bail!("{}", String::from_utf8_lossy(text)),
        }
    }
}
