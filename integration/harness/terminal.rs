//! Terminals: a console socket that receives a master, and one that a person would sit at.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::os::fd::AsFd;

/// A `--console-socket` that waits for the runtime.
#[derive(Debug)]
pub(crate) struct ConsoleSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    pub(crate) fn at(path: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { path, listener }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The master that the runtime has sent: exactly one descriptor.
    #[track_caller]
    pub(crate) fn master(&self) -> Terminal {
        let (stream, _) = self.listener.accept().expect("the runtime connects before it succeeds");
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut text = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut text)];
        recvmsg(&stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let mut received: Vec<OwnedFd> = vec![];
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                received.extend(fds);
            }
        }
        assert_eq!(received.len(), 1, "one descriptor in the message");
        Terminal::of(received.remove(0))
    }
}

/// The master's side of a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: std::fs::File,
    read: String,
}

impl Terminal {
    pub(crate) fn of(master: OwnedFd) -> Self {
        Self { master: master.into(), read: String::new() }
    }

    pub(crate) fn master(&self) -> &std::fs::File {
        &self.master
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until `text` has come.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.read.contains(text) {
            let more = self.read_some();
            let late = Instant::now() > deadline;
            assert!(more && !late, "no {text:?} on the terminal, only {:?}", self.read);
        }
    }

    /// All that comes until the last holder of the other side closes it.
    pub(crate) fn read_to_end(mut self) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline && self.read_some() {}
        self.read
    }

    /// `false` at the end, which is EIO for a master.
    fn read_some(&mut self) -> bool {
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, 200_u16).unwrap() == 0 {
            return true;
        }
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(0) | Err(_) => false,
            Ok(size) => {
                self.read.push_str(&String::from_utf8_lossy(&bytes[..size]));
                true
            }
        }
    }
}
