//! The client's side of a foreground `run` or `exec` with a terminal: the standard streams that
//! the bytes go through, and the terminal that a person may sit at.

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

/// What a pipe that is ready takes without a wait, in bytes (`PIPE_BUF`, pipe(7)).
const PIPE_BUF: usize = 4096;

/// The client's standard streams and terminal.
#[derive(Debug)]
pub(crate) struct TerminalClient {
    /// Whose size the container's terminal takes over: the first of input, output and error that
    /// is a terminal, else the controlling one.
    terminal: Option<OwnedFd>,
    pub(super) input: ClientStream,
    pub(super) output: ClientStream,
}

impl TerminalClient {
    /// Opens the client's side. It may go through `/proc` and `/dev/tty`: before anything of a
    /// container is joined.
    pub(crate) fn open() -> Result<Self> {
        let standard = (0..3).map(sys::stdio).find(IsTerminal::is_terminal);
        let terminal = match standard {
            Some(fd) => Some(fd.try_clone_to_owned().context("the terminal")?),
            None => File::open("/dev/tty").ok().map(OwnedFd::from),
        };
        Ok(Self {
            terminal,
            input: ClientStream::open(0, OFlag::O_RDONLY)?,
            output: ClientStream::open(1, OFlag::O_WRONLY)?,
        })
    }

    /// Gives the container's terminal the size of the client's.
    pub(super) fn copy_size(&self, master: BorrowedFd<'_>) {
        let size = self
            .terminal
            .as_ref()
            .and_then(|fd| sys::window_size(fd.as_fd()).ok());
        // One that nobody has given a size says nothing.
        if let Some(size) = size.filter(|size| size.ws_row != 0 || size.ws_col != 0) {
            let _ = sys::set_window_size(master, &size);
        }
    }

    /// Whether the shell has given the terminal to somebody else: to read from it would be an
    /// error, and to change it would disturb them.
    pub(super) fn is_in_background(&self) -> bool {
        tcgetpgrp(sys::stdio(0)).is_ok_and(|group| group != getpgrp())
    }
}

/// A standard stream of which no read or write ever waits: the relay would not see signals.
#[derive(Debug)]
pub(super) struct ClientStream {
    fd: OwnedFd,
    is_socket: bool,
    /// The most that one write may hold, in bytes.
    piece: usize,
}

impl AsFd for ClientStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl ClientStream {
    /// A terminal or a pipe is opened a second time: O_NONBLOCK on the description that is there
    /// would hold for the client as well. Files do not wait, and have a position to keep.
    fn open(number: i32, mode: OFlag) -> Result<Self> {
        let standard = sys::stdio(number);
        let kind = file_type(standard)?;
        if standard.is_terminal() || kind == SFlag::S_IFIFO {
            let path = format!("/proc/self/fd/{number}");
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

/// Standard input in raw mode, until dropped.
#[derive(Debug)]
pub(super) struct RawMode(Termios);

/// How standard input was, for a program that ends without destructors.
static BEFORE: OnceLock<libc::termios> = OnceLock::new();

impl RawMode {
    /// `None` if standard input is not a terminal.
    pub(super) fn enter() -> Result<Option<Self>> {
        let input = sys::stdio(0);
        if !input.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(input).context("tcgetattr")?;
        let _ = BEFORE.set(before.clone().into());
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        // The container's terminal leaves the carriage returns to this one.
        raw.output_flags.insert(OutputFlags::OPOST);
        tcsetattr(input, SetArg::TCSANOW, &raw).context("tcsetattr")?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(sys::stdio(0), SetArg::TCSANOW, &self.0);
    }
}

/// Leaves raw mode where no destructor will: on the way to an abort.
pub(crate) fn restore_terminal() {
    if let Some(before) = BEFORE.get() {
        let _ = tcsetattr(sys::stdio(0), SetArg::TCSANOW, &Termios::from(*before));
    }
}
