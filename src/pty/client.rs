//! The client's side of a foreground command with a terminal: the standard streams of `rt`, through
//! which the bytes go, and the terminal at which a person may sit. The client is whoever uses these
//! streams.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::sys::stat::{Mode, SFlag};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, read, tcgetpgrp, write};

use crate::sys;
use crate::sys::rootfd::file_type;

/// How much a pipe that is ready accepts without blocking, in bytes (`PIPE_BUF`, pipe(7)).
const PIPE_BUF: usize = 4096;

/// The client's standard streams and terminal.
#[derive(Debug)]
pub struct TerminalClient {
    /// The terminal whose size the container's terminal gets: the first of standard input, output
    /// and error that is a terminal, or else the controlling terminal.
    terminal: Option<OwnedFd>,
    pub(super) input: ClientStream,
    pub(super) output: ClientStream,
}

impl TerminalClient {
    /// Opens the client's side. To be called before any namespace of a container is joined, because
    /// it uses `/proc` and `/dev/tty`.
    pub fn open() -> Result<Self> {
        let standard = sys::standard_streams();
        let standard = standard.into_iter().find(IsTerminal::is_terminal);
        let terminal = match standard {
            Some(fd) => Some(fd.try_clone_to_owned().context("the terminal")?),
            None => File::open("/dev/tty").ok().map(OwnedFd::from),
        };
        Ok(Self {
            terminal,
            input: ClientStream::open(sys::stdin(), OFlag::O_RDONLY)?,
            output: ClientStream::open(sys::stdout(), OFlag::O_WRONLY)?,
        })
    }

    /// Gives the container's terminal the size of the client's terminal.
    pub(super) fn copy_size(&self, master: BorrowedFd<'_>) {
        let size = self
            .terminal
            .as_ref()
            .and_then(|fd| sys::window_size(fd.as_fd()).ok());
        // A size of 0 by 0 means that the terminal's size has never been set.
        if let Some(size) = size.filter(|size| size.ws_row != 0 || size.ws_col != 0) {
            let _ = sys::set_window_size(master, size);
        }
    }

    /// Whether another process group has the terminal: then reading from it would be an error, and
    /// changing it would disturb that process group.
    pub(super) fn is_in_background(&self) -> bool {
        tcgetpgrp(sys::stdin()).is_ok_and(|group| group != getpgrp())
    }
}

/// A standard stream whose reads and writes never block, because the relay would not notice signals
/// meanwhile.
#[derive(Debug)]
pub(super) struct ClientStream {
    fd: OwnedFd,
    is_socket: bool,
    /// The most bytes that one write may have.
    piece: usize,
}

impl AsFd for ClientStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl ClientStream {
    /// Opens the stream `standard`. A terminal or a pipe is opened a second time, because
    /// O_NONBLOCK on the existing open file description would affect the client as well. A file is
    /// only duplicated: it never blocks, and its offset has to stay shared.
    fn open(standard: BorrowedFd<'_>, mode: OFlag) -> Result<Self> {
        let kind = file_type(standard)?;
        if standard.is_terminal() || kind == SFlag::S_IFIFO {
            let path = format!("/proc/self/fd/{}", standard.as_raw_fd());
            let flags = mode | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            if let Ok(fd) = openat(AT_FDCWD, path.as_str(), flags, Mode::empty()) {
                return Ok(Self {
                    fd,
                    is_socket: false,
                    piece: usize::MAX,
                });
            }
        }
        let fd = standard
            .try_clone_to_owned()
            .context("the standard streams")?;
        let is_socket = kind == SFlag::S_IFSOCK;
        Ok(Self {
            fd,
            is_socket,
            piece: if is_socket { usize::MAX } else { PIPE_BUF },
        })
    }

    pub(super) fn read(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        match self.is_socket {
            true => recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT),
            false => read(&self.fd, buffer),
        }
    }

    pub(super) fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        let bytes = &bytes[..bytes.len().min(self.piece)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match self.is_socket {
            true => send(self.fd.as_raw_fd(), bytes, flags),
            false => write(&self.fd, bytes),
        }
    }
}

/// Standard input in raw mode; dropping this restores its settings.
#[derive(Debug)]
pub(super) struct RawMode(Termios);

/// The settings of standard input before raw mode, for an end of the program without destructors.
static BEFORE: OnceLock<libc::termios> = OnceLock::new();

impl RawMode {
    /// Sets raw mode; `None` if standard input is not a terminal.
    pub(super) fn enter() -> Result<Option<Self>> {
        let input = sys::stdin();
        if !input.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(input).context("tcgetattr")?;
        let _ = BEFORE.set(before.clone().into());
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        // The container's terminal adds no carriage returns: this one has to.
        raw.output_flags.insert(OutputFlags::OPOST);
        tcsetattr(input, SetArg::TCSANOW, &raw).context("tcsetattr")?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(sys::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// Leaves raw mode before an abort, which runs no destructors.
pub fn restore_terminal() {
    if let Some(before) = BEFORE.get() {
        let _ = tcsetattr(sys::stdin(), SetArg::TCSANOW, &Termios::from(*before));
    }
}
