//! Terminals: the pseudoterminal of a container, the console socket to which its master is sent,
//! and the relay between its master and the standard streams of a command in the foreground.

mod client;
mod relay;

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use nix::sys::statfs::{FsType, fstatfs};
use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::{Gid, Uid, fchown};
use rustix::termios::Winsize;

use crate::sys;
use crate::sys::rootfd::RootFd;

pub use client::{TerminalClient, restore_terminal};
pub use relay::Relay;

/// `DEVPTS_SUPER_MAGIC` of <linux/magic.h>.
const DEVPTS_SUPER_MAGIC: FsType = FsType(0x1cd1);
/// The id of the group tty, which owns terminals: the same on every distribution.
const TTY_GROUP: u32 = 5;

/// Both ends of a new pseudoterminal.
#[derive(Debug)]
pub struct Pair {
    pub master: OwnedFd,
    pub peer: OwnedFd,
}

impl Pair {
    /// Opens a pseudoterminal of the devpts at `/dev/pts` below `root`, with `size` as rows and
    /// columns. The peer is opened from the master and never by its path, where the image could
    /// have put something else (CVE-2025-52565).
    pub fn open(root: &RootFd, size: Option<(u16, u16)>) -> Result<Self> {
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
            let size = Winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            sys::set_window_size(master.as_fd(), size).context("process.consoleSize")?;
        }
        // As in runc, this terminal adds no carriage returns: the user's own terminal adds them.
        let mut settings = tcgetattr(&peer).context("tcgetattr")?;
        settings.output_flags.remove(OutputFlags::ONLCR);
        tcsetattr(&peer, SetArg::TCSANOW, &settings).context("tcsetattr")?;
        Ok(Self { master, peer })
    }
}

/// Makes the user of the process the owner of the terminal, and tty its group.
pub fn give_to(peer: &OwnedFd, uid: u32) -> Result<()> {
    match fchown(
        peer,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(TTY_GROUP)),
    ) {
        // The user namespace does not map that group (or the user).
        Ok(()) | Err(Errno::EINVAL | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno).context("the terminal's owner"),
    }
}

/// Checks that `--console-socket` is given exactly if the process has a terminal and `rt` does not
/// stay to relay it.
pub fn check_console(terminal: bool, detached: bool, socket: &Option<PathBuf>) -> Result<()> {
    match (terminal, detached, socket) {
        (true, true, None) => bail!(
            "process.terminal: cannot allocate tty if rt will detach without setting console socket (--console-socket)"
        ),
        (false, _, Some(_)) => bail!(
            "--console-socket: cannot use console socket if rt will not detach or allocate tty"
        ),
        (true, false, Some(_)) => bail!("--console-socket: only when detached"),
        _ => Ok(()),
    }
}

/// Sends the master of the terminal to the console socket. Returns the master, for the relay, if
/// there is no console socket.
pub fn hand_over(
    terminal: Option<OwnedFd>,
    console: Option<&DescriptorSocket>,
) -> Result<Option<OwnedFd>> {
    match (terminal, console) {
        (Some(master), Some(console)) => console.send(master.as_fd(), "/dev/ptmx").map(|()| None),
        (terminal, _) => Ok(terminal),
    }
}

/// A connection to a socket of the engine that receives a descriptor.
#[derive(Debug)]
pub struct DescriptorSocket {
    socket: OwnedFd,
    origin: String,
}

impl DescriptorSocket {
    /// Connects to the socket at `path`; to be called before anything is created. `option` is the
    /// option or annotation that named the path, for errors.
    pub fn connect(path: &Path, option: &str) -> Result<Self> {
        let origin = format!("{option} {}", path.display());
        let address = UnixAddr::new(path).with_context(|| origin.clone())?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(socket.as_raw_fd(), &address).with_context(|| origin.clone())?;
        Ok(Self { socket, origin })
    }

    /// Connects like [`Self::connect`] if there is a path.
    pub fn connect_if(path: &Option<PathBuf>, option: &str) -> Result<Option<Self>> {
        path.as_ref()
            .map(|path| Self::connect(path, option))
            .transpose()
    }

    /// Sends `descriptor` with `name` as the text of the message.
    pub fn send(&self, descriptor: BorrowedFd<'_>, name: &str) -> Result<()> {
        let message = [IoSlice::new(name.as_bytes())];
        let fds = [descriptor.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.socket.as_raw_fd(), &message, &rights, flags, None)
            .with_context(|| self.origin.clone())?;
        Ok(())
    }
}
