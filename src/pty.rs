//! Terminals: the pair that a container gets, the console socket that its master goes over, and
//! the relay of a foreground `run`.

use std::io::{IoSlice, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use nix::sys::statfs::{FsType, fstatfs};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Gid, Uid, fchown, read, write};

use crate::rootfd::RootFd;
use crate::sys;

/// `DEVPTS_SUPER_MAGIC` of <linux/magic.h>.
const DEVPTS_SUPER_MAGIC: FsType = FsType(0x1cd1);
/// The group that terminals belong to on every distribution.
const TTY_GROUP: u32 = 5;

/// How long the terminal may be silent after the process's end, in milliseconds.
const LEFTOVER_MS: u8 = 100;

/// A new pseudoterminal.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) master: OwnedFd,
    pub(crate) peer: OwnedFd,
}

impl Pair {
    /// Opens a pair of the devpts at `/dev/pts` below `root`. The peer comes from the master,
    /// never by its name, which the image could have given to something else (CVE-2025-52565).
    pub(crate) fn open(root: &RootFd, size: Option<(u16, u16)>) -> Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
        let master = root
            .open_without_links(Path::new("/dev/pts/ptmx"), flags)
            .context("process.terminal needs a devpts at /dev/pts: /dev/pts/ptmx")?;
        if fstatfs(&master)?.filesystem_type() != DEVPTS_SUPER_MAGIC {
            bail!("process.terminal: /dev/pts is not a devpts");
        }
        sys::unlock_terminal(master.as_fd()).context("TIOCSPTLCK")?;
        let peer = sys::terminal_peer(master.as_fd()).context("TIOCGPTPEER")?;
        if let Some((rows, columns)) = size {
            let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            sys::set_window_size(master.as_fd(), &size).context("process.consoleSize")?;
        }
        // As runc's: the client's own terminal adds the carriage returns.
        let mut settings = tcgetattr(&peer).context("tcgetattr")?;
        settings.output_flags.remove(OutputFlags::ONLCR);
        tcsetattr(&peer, SetArg::TCSANOW, &settings).context("tcsetattr")?;
        Ok(Self { master, peer })
    }
}

/// The terminal belongs to the process's user.
pub(crate) fn give_to(peer: &OwnedFd, uid: u32) -> Result<()> {
    match fchown(peer, Some(Uid::from_raw(uid)), Some(Gid::from_raw(TTY_GROUP))) {
        // A user namespace without that group.
        Ok(()) | Err(Errno::EINVAL | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno).context("the terminal's owner"),
    }
}

/// Whether the process's terminal and `--console-socket` go together: it takes the master where
/// nobody stays to relay it.
pub(crate) fn check_console(terminal: bool, detached: bool, socket: Option<&Path>) -> Result<()> {
    match (terminal, detached, socket) {
        (true, true, None) => bail!("process.terminal: needs --console-socket when detached"),
        (false, _, Some(_)) => bail!("--console-socket: process.terminal is not set"),
        (true, false, Some(_)) => bail!("--console-socket: only when detached"),
        _ => Ok(()),
    }
}

/// The terminal's master goes to the console socket, or stays for the relay.
pub(crate) fn hand_over(
    terminal: Option<OwnedFd>,
    console: Option<&DescriptorSocket>,
) -> Result<Option<OwnedFd>> {
    match (terminal, console) {
        (Some(master), Some(console)) => console.send(master.as_fd(), "/dev/ptmx").map(|()| None),
        (terminal, _) => Ok(terminal),
    }
}

/// A connection to a socket of the caller's that takes a descriptor.
#[derive(Debug)]
pub(crate) struct DescriptorSocket {
    socket: OwnedFd,
    origin: String,
}

impl DescriptorSocket {
    /// Connects, before anything is created. `option` is what named the path.
    pub(crate) fn connect(path: &Path, option: &str) -> Result<Self> {
        let origin = format!("{option} {}", path.display());
        let address = UnixAddr::new(path).with_context(|| origin.clone())?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(socket.as_raw_fd(), &address).with_context(|| origin.clone())?;
        Ok(Self { socket, origin })
    }

    /// Sends `descriptor`, with `name` as the message.
    pub(crate) fn send(&self, descriptor: BorrowedFd<'_>, name: &str) -> Result<()> {
        let message = [IoSlice::new(name.as_bytes())];
        let fds = [descriptor.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.socket.as_raw_fd(), &message, &rights, flags, None)
            .with_context(|| self.origin.clone())?;
        Ok(())
    }
}

/// The client's terminal in raw mode, until dropped.
#[derive(Debug)]
pub(crate) struct RawMode(Option<Termios>);

impl RawMode {
    /// Does nothing if standard input is not a terminal.
    pub(crate) fn enter() -> Result<Self> {
        if !std::io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(sys::stdio(0)).context("tcgetattr")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        // The container's terminal leaves the carriage returns to this one.
        raw.output_flags.insert(OutputFlags::OPOST);
        tcsetattr(sys::stdio(0), SetArg::TCSANOW, &raw).context("tcsetattr")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(sys::stdio(0), SetArg::TCSANOW, before);
        }
    }
}

/// Gives the terminal the size of the client's.
pub(crate) fn copy_size(master: BorrowedFd<'_>) {
    if let Ok(size) = sys::window_size(sys::stdio(0)) {
        let _ = sys::set_window_size(master, &size);
    }
}

/// Bytes on their way from one side to the other.
#[derive(Debug)]
struct Flow {
    buffer: Box<[u8]>,
    /// The bytes `start..end` are still to be written.
    start: usize,
    end: usize,
    open: bool,
}

impl Flow {
    fn new() -> Self {
        Self { buffer: vec![0; 16 * 1024].into(), start: 0, end: 0, open: true }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn wants_more(&self) -> bool {
        self.open && self.is_empty()
    }

    /// Reads what is there; a side that has ended is closed.
    fn fill(&mut self, from: BorrowedFd<'_>) {
        match read(from, &mut self.buffer) {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Ok(0) | Err(_) => self.open = false,
            Ok(length) => (self.start, self.end) = (0, length),
        }
    }

    fn drain(&mut self, to: BorrowedFd<'_>) {
        match write(to, &self.buffer[self.start..self.end]) {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => (self.start, self.end, self.open) = (0, 0, false),
            Ok(length) => self.start += length,
        }
    }
}

/// Copies between the client's standard streams and the master.
#[derive(Debug)]
pub(crate) struct Relay {
    master: OwnedFd,
    input: Flow,
    output: Flow,
    _raw: RawMode,
}

impl Relay {
    /// Takes the client's terminal over.
    pub(crate) fn new(master: OwnedFd) -> Result<Self> {
        copy_size(master.as_fd());
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("the terminal")?;
        Ok(Self { master, input: Flow::new(), output: Flow::new(), _raw: RawMode::enter()? })
    }

    /// The client's window has changed.
    pub(crate) fn resize(&self) {
        copy_size(self.master.as_fd());
    }

    /// Copies until `other` is readable.
    pub(crate) fn until(&mut self, other: BorrowedFd<'_>) -> Result<()> {
        while !self.step(Some(other), PollTimeout::NONE)? {}
        Ok(())
    }

    /// After the end of the process: what is still in the terminal.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.input = Flow { open: false, ..Flow::new() };
        while self.output.open {
            let master = PollFd::new(self.master.as_fd(), PollFlags::POLLIN);
            // A process that was left behind may keep the terminal open for ever.
            if self.output.is_empty() && poll(&mut [master], PollTimeout::from(LEFTOVER_MS))? == 0 {
                break;
            }
            self.step(None, PollTimeout::NONE)?;
        }
        Ok(())
    }

    /// One round; true if `other` is readable. A side of which nothing is wanted is not polled:
    /// one that has hung up would be ready for ever.
    fn step(&mut self, other: Option<BorrowedFd<'_>>, timeout: PollTimeout) -> Result<bool> {
        let (fill_output, fill_input) = (self.output.wants_more(), self.input.wants_more());
        let (drain_output, drain_input) = (!self.output.is_empty(), !self.input.is_empty());
        let mut fds = Vec::with_capacity(5);
        let mut add = |wanted: bool, fd, flags| {
            wanted.then(|| {
                fds.push(PollFd::new(fd, flags));
                fds.len() - 1
            })
        };
        let master_in = add(fill_output, self.master.as_fd(), PollFlags::POLLIN);
        let client_in = add(fill_input, sys::stdio(0), PollFlags::POLLIN);
        let client_out = add(drain_output, sys::stdio(1), PollFlags::POLLOUT);
        let master_out = add(drain_input, self.master.as_fd(), PollFlags::POLLOUT);
        let other = other.and_then(|fd| add(true, fd, PollFlags::POLLIN));
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => return Ok(false),
            result => result.context("poll")?,
        };
        let events: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        let ready = |index: Option<usize>| index.is_some_and(|index| events[index]);
        if ready(master_in) {
            self.output.fill(self.master.as_fd());
        }
        if ready(client_in) {
            self.input.fill(sys::stdio(0));
        }
        if ready(client_out) {
            self.output.drain(sys::stdio(1));
        }
        if ready(master_out) {
            self.input.drain(self.master.as_fd());
        }
        Ok(ready(other))
    }
}
