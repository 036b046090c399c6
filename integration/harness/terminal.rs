//! Terminals: a console socket that receives a master, and one that a person would sit at.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::rt::number;
use super::{Rt, until};

/// A `--console-socket` or `--pidfd-socket` that waits for the runtime.
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

    /// The master that the runtime has sent.
    #[track_caller]
    pub(crate) fn master(&self) -> Terminal {
        Terminal::of(self.descriptor().0)
    }

    /// What the runtime has sent: exactly one descriptor, and the text with it.
    #[track_caller]
    pub(crate) fn descriptor(&self) -> (OwnedFd, String) {
        let (stream, _) = self.listener.accept().expect("the runtime connects before it succeeds");
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut text = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut text)];
        let message = recvmsg(&stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let mut received: Vec<OwnedFd> = vec![];
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                received.extend(fds);
            }
        }
        assert_eq!(received.len(), 1, "one descriptor in the message");
        (received.remove(0), String::from_utf8_lossy(&text[..message.bytes]).into_owned())
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

/// A terminal of 30 lines and 99 columns that somebody sits at, and a command that runs there.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) terminal: Terminal,
    slave: std::fs::File,
    child: Child,
}

impl Seat {
    pub(crate) fn run(rt: &Rt) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).unwrap();
        let slave = std::fs::File::from(pair.slave);
        let copy = || Stdio::from(slave.try_clone().unwrap());
        let mut command = rt.command(&[]);
        let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
        Self { terminal: Terminal::of(pair.master), slave, child }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Whether the terminal hands on lines, as it did before the command.
    pub(crate) fn reads_lines(&self) -> bool {
        let settings = tcgetattr(&self.slave).unwrap();
        settings.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.slave, size_of(size)).unwrap();
    }

    /// The status of the command and all that was shown, once it has ended and given the terminal
    /// back as it was.
    #[track_caller]
    pub(crate) fn finish(mut self) -> (i32, String) {
        let mut ended = None;
        until("the command has ended", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        assert!(self.reads_lines(), "the terminal is not as it was");
        drop(self.slave);
        (ended.map_or(-1, number), self.terminal.read_to_end())
    }
}

fn size_of(size: Winsize) -> rustix::termios::Winsize {
    rustix::termios::Winsize {
        ws_row: size.ws_row,
        ws_col: size.ws_col,
        ws_xpixel: size.ws_xpixel,
        ws_ypixel: size.ws_ypixel,
    }
}
